# SPDX-License-Identifier: Apache-2.0
"""Files that hold secrets: written as a whole, for their owner alone."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def write_private(path: Path, content: str | bytes, *, mode: int = 0o600) -> None:
    """Write a file that only its owner may read; a reader meanwhile finds the old content or the new one.

    :param content: text is UTF-8, with surrogate escapes for other bytes.
    :param mode: permissions; ``0o700`` for a script.
    """
    data = content if isinstance(content, bytes) else content.encode("utf-8", "surrogateescape")
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # for its owner from the start
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
        os.chmod(temporary, mode)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
