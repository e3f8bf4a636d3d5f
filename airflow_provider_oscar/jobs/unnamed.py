# SPDX-License-Identifier: Apache-2.0
"""Jobs of OSCAR before 4.1, which makes up their names and tells nobody: each submission still makes one job.

One submission at a time and service on this machine (a lock), the list of jobs before and after, and a note on disk
that outlives the process: what appeared since is ours. Where other clients, or files in the service's own input, start
jobs at the same moment, more than one appears, and then it is not guessed.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from airflow_provider_oscar.core.errors import AccessError, LostContactError, TransientError
from airflow_provider_oscar.hooks.oscar.errors import NotOscarError
from airflow_provider_oscar.hooks.oscar.hook import OscarHook
from airflow_provider_oscar.hooks.oscar.submissions import JobRequest, Submission

log = logging.getLogger(__name__)

#: Seconds between looks for a job that OSCAR accepted.
_LOOKS = (0.0, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
#: The same after an answer that leaves it open whether OSCAR acted.
_UNCLEAR_LOOKS = (0.5, 1.0, 2.0)
#: Requests that start one job.
_ATTEMPTS = 6
#: Seconds that other submissions to the service are waited for.
_LOCK_SECONDS = 300.0
_LOCK_PAUSE = 0.1


def notes_folder() -> Path:
    """Where locks and notes lie: of this user and machine."""
    return Path(tempfile.gettempdir()) / f"airflow-provider-oscar-{os.getuid()}"


@dataclass
class UnnamedJobs:
    """Starts jobs of one service on an old server.

    :param hook: the connection.
    :param service: name of the service.
    :param sleep: waits between looks.
    :param folder: locks and notes.
    """

    hook: OscarHook
    service: str
    sleep: Callable[[float], None] = time.sleep
    folder: Path | None = None

    def submit(self, job: JobRequest, submission_id: str) -> Submission:
        """Start a job once, whatever becomes of requests, answers and this process.

        :raises LostContactError: if several jobs appeared, or none that OSCAR accepted.
        :raises TransientError: if another submission holds the service too long, or OSCAR stays away.
        """
        with self._lock() as note:
            before = note.get(submission_id)
            if before is None:
                before = sorted(self.hook.run(self.hook.list_jobs(self.service)))
                note.put(submission_id, before)
            elif found := self._appeared(before, note, (0.0,)):
                # An earlier try of this very work sent it, and did not live to see it.
                return self._ours(found, job, note, submission_id, sure=False, adopted=True)
            for attempt in range(1, _ATTEMPTS + 1):
                try:
                    self.hook.run(self.hook.send_job(job, submission_id))
                except (TransientError, AccessError, NotOscarError) as error:
                    if found := self._appeared(before, note, _UNCLEAR_LOOKS):
                        return self._ours(found, job, note, submission_id, sure=False)
                    if attempt == _ATTEMPTS:
                        raise
                    log.info("Submission %d to service %s left no job: %s", attempt, self.service, error)
                    continue
                found = self._appeared(before, note, _LOOKS)
                return self._ours(found, job, note, submission_id, sure=True)
            raise AssertionError("the loop returns or raises")

    def _appeared(self, before: list[str], note: _Notes, pauses: tuple[float, ...]) -> list[str]:
        known = {*before, *note.claimed()}
        for pause in pauses:
            if pause:
                self.sleep(pause)
            if new := sorted(set(self.hook.run(self.hook.list_jobs(self.service))) - known):
                return new
        return []

    def _ours(
        self,
        found: list[str],
        job: JobRequest,
        note: _Notes,
        submission_id: str,
        *,
        sure: bool,
        adopted: bool = False,
    ) -> Submission:
        """Return the one job that appeared; one that may be another's is not taken."""
        if not found:
            raise LostContactError(self.hook.unlisted(self.service))
        if len(found) > 1 or (job.has_inputs and not sure):
            raise LostContactError(self.hook.ambiguous(self.service, len(found)))
        note.claim(submission_id, found[0])
        return Submission(found[0], adopted=adopted)

    @contextlib.contextmanager
    def _lock(self) -> Iterator[_Notes]:
        folder = self.folder or notes_folder()
        folder.mkdir(mode=0o700, exist_ok=True)
        digest = hashlib.sha256(f"{self.hook.api.endpoint}\n{self.service}".encode()).hexdigest()[:16]
        with (folder / f"{digest}.lock").open("a") as file:
            end = time.monotonic() + _LOCK_SECONDS
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError as error:
                    if time.monotonic() > end:
                        raise TransientError(
                            f"{self.hook.display_name}: other tasks have been submitting to service {self.service!r} "
                            f"for {_LOCK_SECONDS:.0f} s, and OSCAR before 4.1 takes one at a time"
                        ) from error
                    self.sleep(_LOCK_PAUSE)
            # Closing the file gives the lock back, also when the process dies.
            yield _Notes(folder / f"{digest}.json")


class _Notes:
    """What is being submitted, with the jobs that were there before; and the jobs that have an owner.

    :param path: the file; read and written under the lock.
    """

    #: Jobs that are remembered as somebody's; older ones were there before any submission that is under way.
    _CLAIMS = 1000

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            found = json.loads(path.read_text())
            self._pending: dict[str, list[str]] = dict(found["pending"])
            self._claimed: list[str] = list(found["claimed"])
        except (OSError, ValueError, KeyError, TypeError):
            self._pending, self._claimed = {}, []

    def get(self, submission_id: str) -> list[str] | None:
        """The jobs before a submission that is not known to have ended."""
        return self._pending.get(submission_id)

    def put(self, submission_id: str, before: list[str]) -> None:
        """Note that a submission begins."""
        self._pending[submission_id] = before
        self._write()

    def claimed(self) -> list[str]:
        """Jobs of other submissions."""
        return self._claimed

    def claim(self, submission_id: str, job: str) -> None:
        """Note whose a job is."""
        self._pending.pop(submission_id, None)
        self._claimed = [*self._claimed, job][-self._CLAIMS :]
        self._write()

    def _write(self) -> None:
        temporary = self._path.with_suffix(".new")
        temporary.touch(mode=0o600)
        temporary.write_text(json.dumps({"pending": self._pending, "claimed": self._claimed}))
        temporary.replace(self._path)
