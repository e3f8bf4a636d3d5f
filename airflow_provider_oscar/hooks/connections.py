# SPDX-License-Identifier: Apache-2.0
"""One hook and one small pool of threads per connection and process, for all watchers of that store.

Hooks block. Were their calls made in the threads that the whole triggerer shares, six watchers of a server that
accepts and never answers would stop all others. So each connection has threads of its own, and each call a deadline:
a sick store harms its own watchers only. And a client costs 14 MB, so a thousand places of one store share one.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import asynccontextmanager
from typing import Generic, Protocol, TypeVar, cast
from weakref import WeakKeyDictionary

from airflow_provider_oscar.core.errors import TransientError

log = logging.getLogger(__name__)

#: Calls to one connection at a time.
WORKERS = 8
#: Seconds until a call counts as hanging, unless the hook has a ``call_deadline``: what the connection allows for
#: reaching the store and for a byte of its answer. The hook's time-outs apply to each attempt, and end it.
CALL_DEADLINE = 60.0
#: Times the deadline after which threads that all hang are given up for others: some clients wait for an answer for
#: ever, and would not notice that the server is well again.
GIVE_UP_AFTER = 5
#: Pools of one connection that are given up at most while their calls hang.
_MOST_GIVEN_UP = 3
#: Seconds a hook is kept though a call failed: when a store is away, its thousand watchers fail one by one.
_RENEW_AFTER = 10.0


class Closable(Protocol):
    """A hook."""

    def close(self) -> None:
        """Close network connections."""


H = TypeVar("H", bound=Closable)
T = TypeVar("T")


class _Lease(Generic[H]):
    """A hook and how many use it; it is closed when it is outdated and nobody does."""

    def __init__(self, hook: H, opened: float) -> None:
        self.hook = hook
        self.opened = opened
        self.users = 0
        self.outdated = False


class _Threads:
    """The threads of one connection, and how many of their calls hang."""

    def __init__(self, workers: int) -> None:
        self.pool = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="store")
        self.slots = asyncio.Semaphore(workers)
        self.hanging = 0
        self.hung_at = 0.0

    def returned(self, work: asyncio.Future[T]) -> None:
        self.slots.release()
        if not work.cancelled():
            work.exception()  # perhaps nobody waits for it any more

    def hangs(self, work: asyncio.Future[T]) -> None:
        self.hanging += 1
        self.hung_at = asyncio.get_running_loop().time()
        work.add_done_callback(self._stopped_hanging)

    def _stopped_hanging(self, _: asyncio.Future[T]) -> None:
        self.hanging -= 1


class StoreConnection(Generic[H]):
    """The hook of one connection, and its threads.

    :param display_name: names the connection in messages.
    :param open_hook: makes the hook, in a thread; called again after a failure, so that a corrected connection is used.
    :param workers: calls at a time.
    :param deadline: seconds until a call counts as hanging.
    """

    def __init__(
        self, display_name: str, open_hook: Callable[[], H], *, workers: int = WORKERS, deadline: float = CALL_DEADLINE
    ) -> None:
        self.display_name = display_name
        self.users = 0
        self._open_hook = open_hook
        self._workers = workers
        self._deadline = deadline
        self._threads = _Threads(workers)
        self._given_up: list[_Threads] = []
        self._at_work: set[Future[object]] = set()
        self._opening = asyncio.Lock()
        self._lease: _Lease[H] | None = None

    async def call(self, function: Callable[[], T]) -> T:
        """Run a blocking function in a thread of this connection.

        :raises TransientError: if it does not end within the deadline, or all threads hang.
        """
        threads = await self._slot()
        job = threads.pool.submit(function)
        self._at_work.add(cast("Future[object]", job))
        job.add_done_callback(lambda done: self._at_work.discard(cast("Future[object]", done)))
        work = asyncio.wrap_future(job)
        work.add_done_callback(threads.returned)
        done, _ = await asyncio.wait((work,), timeout=self._deadline)
        if done:
            return work.result()
        threads.hangs(work)
        raise TransientError(
            f"{self.display_name}: no answer within {self._deadline:g} s; {threads.hanging} of {self._workers} calls "
            "to it hang. Other connections are not affected"
        )

    async def _slot(self) -> _Threads:
        while True:
            threads = self._threads
            try:
                async with asyncio.timeout(self._deadline):
                    await threads.slots.acquire()
            except TimeoutError:
                if threads.hanging >= self._workers and not self._replace(threads):
                    raise TransientError(
                        f"{self.display_name}: all {self._workers} calls to it hang, and no further one is begun"
                    ) from None
            else:
                if threads is self._threads:
                    return threads
                threads.slots.release()  # they were replaced meanwhile

    def _replace(self, threads: _Threads) -> bool:
        """Give up threads that all hang for long, and the hook they use; return whether others are there now."""
        if threads is not self._threads:
            return True
        self._given_up = [each for each in self._given_up if each.hanging]
        hung = asyncio.get_running_loop().time() - threads.hung_at
        if hung < GIVE_UP_AFTER * self._deadline or len(self._given_up) >= _MOST_GIVEN_UP:
            return False
        log.warning(
            "%s: all %d calls to it hang and are given up; it is tried with others", self.display_name, self._workers
        )
        self._given_up.append(threads)
        threads.pool.shutdown(wait=False)
        self._threads = _Threads(self._workers)
        if self._lease is not None:
            self._lease.outdated, self._lease = True, None
        return True

    def _opened(self) -> tuple[H, float]:
        """Make the hook, in a thread: the connection is read here."""
        hook = self._open_hook()
        return hook, float(getattr(hook, "call_deadline", self._deadline))

    @asynccontextmanager
    async def hook(self) -> AsyncIterator[H]:
        """Lend the hook; after an error it is made again, for all."""
        async with self._opening:
            if self._lease is None:
                hook, self._deadline = await self.call(self._opened)
                self._lease = _Lease(hook, asyncio.get_running_loop().time())
            lease = self._lease
        lease.users += 1
        try:
            yield lease.hook
        except Exception:
            if asyncio.get_running_loop().time() - lease.opened >= _RENEW_AFTER:
                lease.outdated = True
                if self._lease is lease:
                    self._lease = None
            raise
        finally:
            lease.users -= 1
            if lease.outdated and not lease.users:
                self._close(lease.hook)

    def _close(self, hook: H) -> None:
        """Close a hook in a thread, when none of those at work may be using it any more.

        A socket that is closed under a thread that reads from it leaves its number to the next that is opened, and the
        thread goes on reading there. Whoever was cancelled does not wait for its thread.
        """
        if busy := set(self._at_work):
            threading.Thread(target=lambda: (wait(busy), hook.close()), name="close-store", daemon=True).start()
            return
        try:
            self._threads.pool.submit(hook.close)
        except RuntimeError:  # the threads are gone, because the process ends
            hook.close()

    def close(self) -> None:
        """Close the hook; threads that hang end by themselves."""
        if self._lease is not None:
            self._lease.outdated = True
            if not self._lease.users:
                self._close(self._lease.hook)
            self._lease = None
        self._threads.pool.shutdown(wait=False)


class Connections(Generic[H]):
    """The connections of one kind of store that are in use, per event loop.

    :param kind: names the kind of store in messages.
    :param open_hook: makes the hook of a connection id; blocking.
    """

    def __init__(self, kind: str, open_hook: Callable[[str], H]) -> None:
        self.open_hook = open_hook
        self._kind = kind
        self._used: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, StoreConnection[H]]] = WeakKeyDictionary()

    def acquire(self, conn_id: str) -> StoreConnection[H]:
        """Return the connection, to be given to :meth:`release` in the end; needs a running event loop."""
        used = self._used.setdefault(asyncio.get_running_loop(), {})
        if conn_id not in used:
            used[conn_id] = StoreConnection(f"{self._kind} connection {conn_id!r}", lambda: self.open_hook(conn_id))
        used[conn_id].users += 1
        return used[conn_id]

    @asynccontextmanager
    async def lend(self, conn_id: str) -> AsyncIterator[StoreConnection[H]]:
        """Lend a connection for a while."""
        connection = self.acquire(conn_id)
        try:
            yield connection
        finally:
            self.release(conn_id)

    def release(self, conn_id: str) -> None:
        """Give a connection back; the last one closes it."""
        used = self._used.get(asyncio.get_running_loop(), {})
        if conn_id not in used:
            return
        used[conn_id].users -= 1
        if not used[conn_id].users:
            used.pop(conn_id).close()
