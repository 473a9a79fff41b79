"""One collection at a time, in a thread of its own, shared by all who ask meanwhile."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

from ..config import Config, ExporterConfig
from ..store.connections import Ranked
from ..store.directory import Directory, DirectoryError, service_path
from ..store.snapshot import Snapshot, Source
from ..telemetry.logs import log_fault
from ..telemetry.prometheus import negotiate, render
from ..watchdog.kernel import View
from ..watchdog.workers import Health
from .overview import Overview, overview

FAILED = "the collection failed; the log says why"
MAX_AGE = 1.0
"""Seconds for which a collection is given to all who ask."""

T = TypeVar("T")


class CollectionError(Exception):
    """The segments could not be collected; the text says why, in words for a client."""


class Live:
    """The latest collection of a service: one that began less than a second before one asked.

    Whatever collects runs in one thread, so nothing here needs a lock, and those who ask during
    a collection share its result. Every coroutine raises `CollectionError`.
    """

    def __init__(self, config: ExporterConfig, clock: Callable[[], float] = time.monotonic) -> None:
        self._config = Config(service=config.service, directory=config.directory)
        self._source = Source(self._config, period=MAX_AGE)
        self.spied: dict[int, tuple[str, ...]] = {}
        """What py-spy saw of stuck workers, by uuid."""
        self.health: list[Health] = []
        """The workers at the latest regular look."""
        self._timeout = config.collect_timeout
        self._clock = clock
        self._thread = ThreadPoolExecutor(1, "ws-lifecycle-collect")
        self._turn = asyncio.Lock()
        self._work: asyncio.Future[Any] | None = None
        self._taking: Future[Snapshot] | None = None
        self._began_at = -math.inf
        self._snapshot: Snapshot | None = None  # None: the collection failed
        self._made: dict[str, Any] = {}  # what was made of the snapshot

    def close(self) -> None:
        """Begin no further collection."""
        if self._work is not None:
            self._work.cancel()
        self._thread.shutdown(wait=False, cancel_futures=True)

    def show(self, views: Mapping[int, View]) -> None:
        """Take the kernel's view of the workers' processes, which somebody else reads."""
        self._source.views = views

    async def snapshot(self) -> Snapshot:
        """Return the collection."""
        return await self._ask("snapshot", self._held)

    async def look(self) -> Snapshot:
        """Return a collection of its own, for who looks regularly; others' are not aged by it."""
        return await self._in_thread(self._take)

    def take(self) -> Snapshot:
        """Return a collection of its own, for who waits in another thread.

        Raises what collecting raises, and `TimeoutError`.
        """
        if self._taking is None or self._taking.done():
            self._taking = self._thread.submit(self._source.take)
        return self._taking.result(self._timeout)

    async def metrics(self, accept: str) -> tuple[bytes, str]:
        """Return the exposition and its content type; a failed collection is told in it."""
        wanted = negotiate(accept)
        return await self._ask(f"metrics {wanted}", lambda: render(self._held, wanted))

    async def connections(self) -> tuple[Snapshot, Ranked]:
        """Return the collection and its connections, worst first."""
        return await self._ask("connections", lambda: (self._held(), self._held().ranked()))

    async def overview(self) -> Overview:
        """Return what the index shows."""
        return await self._ask("overview", lambda: overview(self._held()))

    async def check(self) -> None:
        """Collect, and see that the segments are in a directory that can be used."""
        await self._ask("check", self._check)

    async def _ask(self, key: str, make: Callable[[], T]) -> T:
        asked_at = self._clock()

        def answer() -> T:
            # Not the age now: who waited through a long collection takes that one.
            if asked_at >= self._began_at + MAX_AGE:
                self._collect()
            if key not in self._made:
                self._made[key] = make()
            found: T = self._made[key]
            return found

        return await self._in_thread(answer)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._timeout):
                # The thread's queue keeps what was given up, so the others wait before it.
                await self._turn.acquire()
                self._work = done = loop.run_in_executor(self._thread, work)
                done.add_done_callback(lambda _: self._turn.release())
                return await asyncio.shield(done)
        except TimeoutError:
            raise CollectionError("the collection takes too long") from None

    # In the thread.

    def _collect(self) -> None:
        self._began_at = self._clock()
        self._snapshot = None
        self._made.clear()
        with suppress(CollectionError):
            self._snapshot = self._take()

    def _take(self) -> Snapshot:
        try:
            return self._source.take()
        except Exception as error:  # whatever it is, a second later it may be gone
            log_fault(error)
            raise CollectionError(FAILED) from error

    def _held(self) -> Snapshot:
        if self._snapshot is None:
            raise CollectionError(FAILED)
        return self._snapshot

    def _check(self) -> None:
        self._held()
        try:
            path = service_path(self._config.directory, self._config.service)
            if (directory := Directory.existing(path)) is not None:
                directory.close()
        except DirectoryError as error:
            raise CollectionError(f"the directory of segments cannot be used: {error}") from error
