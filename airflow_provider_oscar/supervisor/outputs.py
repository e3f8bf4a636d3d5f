# SPDX-License-Identifier: Apache-2.0
"""Staging out, decided file by file: what can go out goes out, the others are named with their true reason."""

from __future__ import annotations

import os
import threading
import time
from typing import Any, BinaryIO, Callable, Sequence

from airflow_provider_oscar.supervisor import trees
from airflow_provider_oscar.supervisor.destinations import Destination, choose
from airflow_provider_oscar.supervisor.errors import EXIT_ACCESS, EXIT_UNSTAGED, StageError, TransientError
from airflow_provider_oscar.supervisor.parallel import TRANSFERS, in_parallel
from airflow_provider_oscar.supervisor.parts import PARTS_PREFIX, MultipartUpload
from airflow_provider_oscar.supervisor.stores import SingleUpload, open_regular
from airflow_provider_oscar.supervisor.text import clip, encoded, quoted, say, setting
from airflow_provider_oscar.supervisor.transport import local_file, persist

MANIFEST_NAME = "manifest.json"
LOG_NAMES = ("job.log", "job.log.gz")
#: Added to the name of a file that cannot have its own.
RENAMED_SUFFIX = ".output"
#: So many are named in the manifest; the rest is counted.
UNSTAGED_LIMIT = 1000
PROGRESS_INTERVAL = 10.0
#: Reasons that another try may not meet.
PASSING = ("unreachable", "checksum", "local-file")


class OutputFile:
    """One file on its way out.

    :param key: below the output prefix.
    :param path: of the file, links resolved.
    :param original: name the command gave it, where that cannot be its key.
    """

    def __init__(self, key: str, path: str, original: str = "", reason: str = "") -> None:
        self.key, self.path, self.original, self.reason = key, path, original, reason

    @property
    def name(self) -> str:
        """What the command called it."""
        return self.original or self.key


def unstaged(name: str, reason: str, detail: str) -> dict[str, str]:
    """Return one entry of the manifest's ``unstaged``."""
    return {"name": clip(name), "reason": reason, "detail": clip(detail)}


def visible(name: str) -> str:
    """Return a file name as text, bytes that are not UTF-8 as %XX."""
    raw = os.fsencode(name)
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        kept = "".join(chr(byte) if 0x20 <= byte < 0x7F and byte != 0x25 else f"%{byte:02X}" for byte in raw)
        return kept


def find_outputs(root: str, key_limit: int, reserved: bool = True) -> tuple[list[OutputFile], list[dict[str, str]]]:
    """Return every file to stage out, in order of key, and what cannot be staged out.

    :param key_limit: bytes a key may have.
    :param reserved: keep the names of manifest and log free.
    """
    files: list[OutputFile] = []
    problems: list[dict[str, str]] = []
    unreadable: list[OSError] = []
    real_root = os.path.realpath(root)
    for folder, folders, names in trees.walk(root, unreadable.append):
        here = os.path.relpath(folder, root)
        if len(os.fsencode(here)) > key_limit:
            folders.clear()
            problems.append(_too_long(visible(here), key_limit))
            continue
        for name in names + [each for each in folders if os.path.islink(os.path.join(folder, each))]:
            path = os.path.join(folder, name)
            relative = os.path.relpath(path, root).replace(os.sep, "/")
            found = _judge(path, relative, real_root, key_limit, reserved)
            if isinstance(found, OutputFile):
                files.append(found)
            elif found is not None:
                problems.append(found)
    for error in unreadable:
        name = os.path.relpath(str(error.filename or root), root)
        problems.append(unstaged(visible(name), "unreadable", f"the directory cannot be read: {error.strerror}"))
    return _without_collisions(files), sorted(problems, key=lambda each: each["name"])


def _judge(
    path: str, relative: str, real_root: str, key_limit: int, reserved: bool
) -> OutputFile | dict[str, str] | None:
    """Return the file, or why it is none; None for a link to a directory that is staged out under its own name."""
    name, real = visible(relative), os.path.realpath(path)
    if os.path.islink(path) and not os.path.exists(real):
        return unstaged(name, "dangling-link", "it is a symbolic link to something that does not exist")
    if os.path.commonpath([real, real_root]) != real_root:
        return unstaged(
            name,
            "link-outside",
            "it is a symbolic link that leads out of TMP_OUTPUT_DIR; copy the file there, or write it there",
        )
    if not os.path.isfile(real):
        if os.path.isdir(real):
            return None
        return unstaged(name, "not-regular", "it is not a regular file (a pipe, socket or device)")
    if len(name.encode("utf-8", "replace")) > key_limit:
        return _too_long(name, key_limit)
    first, slash, rest = name.partition("/")
    if reserved and first in (MANIFEST_NAME, *LOG_NAMES):
        return OutputFile(f"{first}{RENAMED_SUFFIX}{slash}{rest}", real, name, "reserved-name")
    if name.startswith(PARTS_PREFIX):
        return OutputFile(name[1:], real, name, "reserved-name")  # our side removes what is below the prefix
    if name.encode("utf-8") != os.fsencode(relative):
        return OutputFile(name, real, name, "name-not-utf8")
    return OutputFile(name, real)


def _too_long(name: str, key_limit: int) -> dict[str, str]:
    return unstaged(name, "name-too-long", f"its name is longer than the {key_limit} bytes its key may have")


def _without_collisions(files: list[OutputFile]) -> list[OutputFile]:
    """Return the files in order of key; a file keeps its own name before another is given it."""
    taken: set[str] = {each.key for each in files if not each.reason}
    for each in files:
        while each.reason and each.key in taken:
            each.key += RENAMED_SUFFIX
        taken.add(each.key)
    return sorted(files, key=lambda each: each.key)


class Upload:
    """One file on its way out; an attempt keeps what the one before stored, if the file is still the same.

    :param opened: opens it, and returns it with its status.
    """

    def __init__(self, store: Any, key: str, opened: Callable[[], tuple[BinaryIO, os.stat_result]]) -> None:
        self._store, self._key, self._opened = store, key, opened
        self._version: tuple[int, int] | None = None
        self._transfer: SingleUpload | MultipartUpload | None = None

    @property
    def count(self) -> int:
        """What is kept of the attempts so far; more is progress."""
        return 0 if self._transfer is None else self._transfer.count

    def attempt(self) -> dict[str, object]:
        """Send it, and return its entry in the manifest."""
        with local_file(f"read output {quoted(self._key)}"):
            file, status = self._opened()
        with file:
            version = (status.st_size, status.st_mtime_ns)
            if self._transfer is None or version != self._version:
                self._transfer, self._version = self._store.transfer(self._key, status.st_size), version
            described = self._transfer.attempt(file)
            after = os.fstat(file.fileno())
        if (after.st_size, after.st_mtime_ns) != version:
            raise TransientError(f"output {quoted(self._key)} changed while it was staged out", reason="changed")
        return {"key": self._key, "size": status.st_size, **described}


class StageOut:
    """One directory on its way out.

    :param store: see :mod:`airflow_provider_oscar.supervisor.stores`.
    :param budget: bytes that may be staged out in all, or None.
    :param prefix: put before every key.
    :param taken: keys that other files have already.
    :param others: further places, for names that match their patterns; the first counts.
    """

    def __init__(
        self,
        store: Any,
        budget: float | None,
        prefix: str = "",
        taken: frozenset[str] = frozenset(),
        others: Sequence[Destination] = (),
    ) -> None:
        self.prefix, self.taken = prefix, taken
        self.main, self.others = Destination(store), others
        self.budget = float("inf") if budget is None else budget
        self.outputs: list[dict[str, Any]] = []
        self.unstaged: list[dict[str, str]] = []
        self.transient: StageError | None = None
        self._done = 0
        self._lock = threading.Lock()
        self._reported_at = time.monotonic()

    def run(self, root: str) -> None:
        """Stage out what can be; the rest is in ``unstaged`` afterwards."""
        longest = max(each.store.key_limit for each in self._destinations()) - len(self.prefix)
        files, problems = find_outputs(root, longest, reserved=not self.prefix)
        self.unstaged += problems
        for each in files:
            if self.prefix + each.key in self.taken:
                each.original, each.reason = each.name, "reserved-name"
                each.key += RENAMED_SUFFIX
            elif each.reason == "reserved-name" and self._is_free_elsewhere(each):
                each.key, each.original, each.reason = each.name, "", ""
        affordable = [each for each in files if self._affordable(each)]
        results = in_parallel(lambda each: self._upload(each, len(affordable)), affordable, self._threads())
        for each, result in zip(affordable, results):
            if isinstance(result, StageError):
                self._note(each, result)
            elif isinstance(result, Exception):
                raise result
            else:
                self.outputs.append(result)
                if each.reason:
                    self._note_renamed(each)
        if files or problems:
            self._tell()

    def _tell(self) -> None:
        for entry in self.unstaged[:20]:
            say(f"{quoted(entry['name'])} was not staged out: {entry['detail']}")
        size = sum(each["size"] for each in self.outputs)
        left = f"; {len(self.unstaged)} cannot be, see the manifest" if self.unstaged else ""
        say(f"staged out {len(self.outputs)} file(s), {size} bytes{left}")
        for destination in self.others:
            if destination.stored:
                say(f"{destination.stored} of them match {quoted(destination.pattern)} and went to {destination.uri}")

    def check(self, on_unstaged: str) -> None:
        """Raise what has to become of the job.

        :param on_unstaged: ``fail``, or ``warn`` for what no repetition would mend.
        :raises StageError: if results are missing that should be there.
        """
        for destination in self._destinations():
            if destination.refused is not None and (not destination.stored or destination.gives_up):
                raise destination.refused
        if self.unstaged and on_unstaged == "fail":
            reasons = [each for each in self.unstaged if each["reason"] not in PASSING]
            if reasons:
                parts = [f"{quoted(each['name'])}: {each['detail']}" for each in reasons[:5]]
                raise StageError(
                    f"{len(reasons)} output(s) could not be staged out as they are: {'; '.join(parts)}"
                    + (" and more" if len(reasons) > 5 else ""),
                    EXIT_UNSTAGED,
                    reasons[0]["reason"],
                )
        if self.transient is not None:
            raise self.transient

    def _threads(self) -> int:
        return int(setting("TRANSFERS", TRANSFERS))

    def _destinations(self) -> list[Destination]:
        return [self.main, *(each for each in self.others if each.store is not None)]

    def _is_free_elsewhere(self, each: OutputFile) -> bool:
        """Whether a name that is reserved where log and manifest are goes to a place that has neither."""
        return self._destination(each) is not self.main and not each.name.startswith(PARTS_PREFIX)

    def _destination(self, each: OutputFile) -> Destination:
        return choose(each.name, self.main, self.others)

    def _affordable(self, each: OutputFile) -> bool:
        store = self._destination(each).store
        if len(encoded(self.prefix + each.key)) > store.key_limit:
            self.unstaged.append(_too_long(each.name, store.key_limit - len(self.prefix)))
            return False
        try:
            size = os.stat(each.path).st_size
        except OSError as error:
            self.unstaged.append(unstaged(each.name, "unreadable", f"it cannot be read: {error.strerror}"))
            return False
        if size > store.size_limit:
            detail = f"it has {size} bytes, one upload takes {store.size_limit} at most"
            self.unstaged.append(unstaged(each.name, "too-large", detail))
            return False
        if size > self.budget:
            detail = f"it has {size} bytes, and {self.budget} bytes are left of what the job may stage out"
            self.unstaged.append(unstaged(each.name, "over-limit", detail))
            return False
        self.budget -= size
        return True

    def _upload(self, each: OutputFile, total: int) -> dict[str, object]:
        destination = self._destination(each)
        if destination.refused is not None and destination.gives_up:
            raise destination.refused

        upload = Upload(destination.store, self.prefix + each.key, lambda: open_regular(each.path))
        try:
            done: dict[str, object] = persist(f"stage-out of {quoted(each.key)}", upload.attempt, lambda: upload.count)
        except StageError as error:
            if error.code == EXIT_ACCESS:
                with self._lock:
                    destination.note_refusal(error)
            raise
        self._count_success(destination, total)
        return {**done, "uri": destination.uri} if destination.uri else done

    def _count_success(self, destination: Destination, total: int) -> None:
        with self._lock:
            self._done += 1
            destination.note_success()
            if time.monotonic() - self._reported_at > PROGRESS_INTERVAL:
                self._reported_at = time.monotonic()
                say(f"staged out {self._done} of {total} files")

    def _note(self, each: OutputFile, error: StageError) -> None:
        reason = "unreadable" if error.reason == "local-file" and error.permanent else error.reason
        self.unstaged.append(unstaged(each.name, reason, str(error)))
        if not error.permanent and reason != "changed" and self.transient is None:
            self.transient = error

    def _note_renamed(self, each: OutputFile) -> None:
        why = (
            "the name is reserved for the job's own files"
            if each.reason == "reserved-name"
            else "its name is not UTF-8"
        )
        self.unstaged.append(unstaged(each.original, each.reason, f"{why}; staged out as {quoted(each.key)}"))
