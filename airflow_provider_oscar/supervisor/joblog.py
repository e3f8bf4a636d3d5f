# SPDX-License-Identifier: Apache-2.0
"""The command's output: shown as it comes, kept whole in a file, and never able to pass for ours.

Standard output and error come through one pipe, so that their order stays. The file is plain as long as it is
short and compressed as it grows; memory and delay do not depend on its length.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import struct
import termios
import threading
import time
import zlib
from typing import BinaryIO

from airflow_provider_oscar.supervisor.manifest import MARKER
from airflow_provider_oscar.supervisor.text import say, setting

#: A longer log is kept compressed.
PLAIN_LIMIT = 1024 * 1024
#: Bytes of output that are kept; a command that writes more fills a disk, not a log.
KEPT_LIMIT = 8 * 1024**3
CHUNK = 64 * 1024
#: How long is waited for output still in the pipe when the command has ended.
DRAIN_SECONDS = 2.0

_MARKER = MARKER.rstrip().encode("ascii")
_HARMLESS = _MARKER.replace(b"##", b"## ", 1)


class MarkerFilter:
    """Makes a marker line printed by the command readable as what it is: not ours."""

    def __init__(self) -> None:
        self._held = b""

    def feed(self, data: bytes, last: bool = False) -> bytes:
        """Return what may be shown now; what could be the start of a marker waits for its rest."""
        data = (self._held + data).replace(_MARKER, _HARMLESS)
        self._held = b"" if last else self._start_of_marker(data)
        return data[: len(data) - len(self._held)]

    @staticmethod
    def _start_of_marker(data: bytes) -> bytes:
        for length in range(min(len(_MARKER) - 1, len(data)), 0, -1):
            if data.endswith(_MARKER[:length]):
                return data[-length:]
        return b""


class JobLog:
    """The file that holds the log, and the name it will have in the store.

    :param folder: where it is kept until it is staged out.
    """

    def __init__(self, folder: str) -> None:
        self._plain, self._packed = os.path.join(folder, "job.log"), os.path.join(folder, "job.log.gz")
        self._lock = threading.Lock()
        self._pack: zlib._Compress | None = None  # type: ignore[name-defined,unused-ignore]
        self.bytes = 0
        self.truncated = ""
        self._file: BinaryIO | None = None
        self._whole: BinaryIO | None = None
        try:
            self._file = open(self._plain, "w+b")  # noqa: SIM115 (closed in release)
        except OSError as error:
            self.truncated = f"cannot be kept: {error.strerror}"

    @property
    def path(self) -> str:
        """The file, as far as it was written."""
        return self._plain if self._pack is None else self._packed

    @property
    def name(self) -> str:
        """Its name beside the manifest."""
        return os.path.basename(self.path)

    def note(self, data: bytes) -> None:
        """Keep a line of ours, as it appears between the command's; a log of such lines alone is empty."""
        self.write(data, ours=True)

    def write(self, data: bytes, ours: bool = False) -> None:
        """Keep more of it; a full disk ends the log, not the job."""
        with self._lock:
            if self._file is None:
                return
            if self.bytes + len(data) > setting("LOG_LIMIT", KEPT_LIMIT):
                self._stop(f"longer than {setting('LOG_LIMIT', KEPT_LIMIT):.0f} bytes")
                return
            try:
                if self._pack is None and self.bytes + len(data) > PLAIN_LIMIT:
                    self._start_packing()
                self._file.write(data if self._pack is None else self._pack.compress(data))
            except OSError as error:
                self._stop(f"cannot be kept any more: {error.strerror}")
                return
            self.bytes += 0 if ours else len(data)

    def close(self) -> None:
        """Finish the file; it can be read afterwards, until it is released."""
        with self._lock:
            if self._file is not None:
                with contextlib.suppress(OSError):
                    if self._pack is not None:
                        self._file.write(self._pack.flush())
                    self._file.flush()
                self._whole, self._file = self._file, None

    def opened(self) -> tuple[BinaryIO, os.stat_result]:
        """Open what was written, wherever its name leads by now: the command can remove or replace it."""
        if self._whole is None:
            raise OSError(errno.EBADF, "there is no file of it")
        file = os.fdopen(os.dup(self._whole.fileno()), "rb")
        file.seek(0)
        return file, os.fstat(file.fileno())

    def release(self) -> None:
        """Let go of the file."""
        with contextlib.suppress(OSError):
            if self._whole is not None:
                self._whole.close()
        self._whole = None

    def _start_packing(self) -> None:
        assert self._file is not None
        pack = zlib.compressobj(6, zlib.DEFLATED, 16 + zlib.MAX_WBITS)  # with gzip's head and checksum
        packed = open(self._packed, "w+b")  # noqa: SIM115 (closed in release)
        with self._file as plain:
            plain.seek(0)
            self._file = packed
            packed.write(pack.compress(plain.read()))
        self._pack = pack
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._plain)

    def _stop(self, why: str) -> None:
        """Keep what there is, and say in it why there is no more."""
        self.truncated = why
        if self._file is not None:
            note = f"\nairflow-oscar: the log ends here: {why}\n".encode("utf-8", "replace")
            with contextlib.suppress(OSError):
                self._file.write(note if self._pack is None else self._pack.compress(note))
                if self._pack is not None:
                    self._file.write(self._pack.flush())
                self._file.flush()
            self._whole = self._file
        self._file = None


class OutputPump:
    """Carries the command's output from its pipe to our standard output and into the log, as it comes.

    :param log: keeps it.
    """

    def __init__(self, log: JobLog) -> None:
        self._log, self._filter = log, MarkerFilter()
        self._reader, self.writer = os.pipe()
        self._ended = threading.Event()
        self._at_line_start = True
        self._busy = threading.Lock()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._out = 1

    def start(self) -> None:
        """Begin; call it when the command has its end of the pipe."""
        os.close(self.writer)
        self._thread.start()

    def finish(self) -> None:
        """Take what is left in the pipe, and stop listening to whoever still holds its other end."""
        self._ended.set()
        self._thread.join()
        os.close(self._reader)
        self._end_line()

    def drain(self) -> None:
        """Take what is in the pipe by now."""
        deadline = time.monotonic() + DRAIN_SECONDS
        while self._thread.is_alive() and time.monotonic() < deadline:
            with self._busy:
                if not struct.unpack("i", fcntl.ioctl(self._reader, termios.FIONREAD, bytes(4)))[0]:
                    break
            time.sleep(0.001)
        with self._busy:
            self._end_line()

    def switch(self, log: JobLog) -> None:
        """Let what comes from now on be of another log.

        :param log: keeps it.
        """
        with self._busy:
            self._log = log

    def _end_line(self) -> None:
        self._show(self._filter.feed(b"", last=True))
        if not self._at_line_start:
            self._show(b"\n")

    def abandon(self) -> None:
        """Close both ends; the command was not started."""
        os.close(self.writer)
        os.close(self._reader)

    def _run(self) -> None:
        deadline = float("inf")
        while time.monotonic() < deadline:
            ended = self._ended.is_set()
            ready, _, _ = select.select([self._reader], [], [], 0.0 if ended else 0.2)
            if ended and deadline == float("inf"):
                deadline = time.monotonic() + DRAIN_SECONDS
            if ready:
                with self._busy:
                    data = os.read(self._reader, CHUNK)
                    self._show(self._filter.feed(data))
                if not data:
                    return
            elif ended:
                return

    def _show(self, data: bytes) -> None:
        if not data:
            return
        self._at_line_start = data.endswith(b"\n")
        self._log.write(data)
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._out, view) :]
        except OSError:
            if self._out >= 0:
                self._out = os.open(os.devnull, os.O_WRONLY)  # nobody reads any more; the command goes on
                say("nobody reads the standard output any more; the output is kept in the log alone")
