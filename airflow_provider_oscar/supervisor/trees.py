# SPDX-License-Identifier: Apache-2.0
"""Directory trees of any depth; those of the standard library end where recursion or the length of a path does."""

from __future__ import annotations

import contextlib
import os
from typing import Callable, Iterator


def walk(root: str, onerror: Callable[[OSError], None]) -> Iterator[tuple[str, list[str], list[str]]]:
    """Yield each directory with its directories and its other entries; what is taken from the former is not entered.

    :param onerror: is told of directories that cannot be read.
    """
    pending = [root]
    while pending:
        folder = pending.pop()
        folders: list[str] = []
        others: list[str] = []
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    (folders if _is_directory(entry) else others).append(entry.name)
        except OSError as error:
            onerror(error)
            continue
        yield folder, folders, others
        pending += [path for path in (os.path.join(folder, name) for name in folders) if not os.path.islink(path)]


def _is_directory(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a circle of links
        return False


def remove(root: str) -> None:
    """Remove a tree, however deep it is and whatever may be read of it; what cannot be removed stays."""
    pending, moved = [root], 0
    while pending:
        folder = pending.pop()
        with contextlib.suppress(OSError):
            os.chmod(folder, 0o700)
        with contextlib.suppress(OSError):
            for entry in list(os.scandir(folder)):
                with contextlib.suppress(OSError):
                    if not entry.is_dir(follow_symlinks=False):
                        os.unlink(entry.path)
                    elif folder == root:
                        pending.append(entry.path)
                    else:
                        # A path may have 4096 bytes, a tree more: each directory is moved up before it is looked into.
                        moved += 1
                        target = os.path.join(root, f".remove-{os.getpid()}-{moved}")
                        os.rename(entry.path, target)
                        pending.append(target)
        if folder != root:
            with contextlib.suppress(OSError):
                os.rmdir(folder)
    with contextlib.suppress(OSError):
        os.rmdir(root)
