"""The sidecar's own look at the workers, every second, whether or not anybody asks."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from ..config import ExporterConfig
from ..store.directory import Directory, DirectoryError, service_path, try_lock
from ..store.layout import NS
from ..store.snapshot import Snapshot
from ..telemetry.logs import log_fault
from ..watchdog import recycle
from ..watchdog.kernel import Kernel
from ..watchdog.workers import Health, serving
from .live import CollectionError, Live
from .notify import notify
from .siblings import Siblings
from .spy import Spy, find

PERIOD = 1.0
FRESH = 3 * NS
"""Time for which a look holds for who sends signals: after a pause of ours nobody knows."""

logger = logging.getLogger("ws_lifecycle_metrics")


class Watch:
    """Collects, looks at the kernel's sockets, tells systemd and recycles, if it is to."""

    def __init__(
        self, config: ExporterConfig, live: Live, clock: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self._live = live
        self._clock = clock
        self._kernel = Kernel()
        self._spy = Spy() if config.py_spy else None
        if config.py_spy and find() is None:
            logger.warning("--py-spy: there is no such program; pip install py-spy")
        self._recycler: recycle.Recycler | None = None
        self._lock = -1
        self._stands_by = False
        if config.recycle_stuck:
            timing = recycle.Timing(
                after=config.recycle_after,
                grace=config.recycle_grace,
                pause=config.recycle_pause,
                jitter=config.recycle_jitter,
            )
            self._recycler = recycle.Recycler(
                timing,
                send=recycle.send,
                chance=random.random,
                shared=Siblings(config).serve_in,
            )
        self._place = service_path(config.directory, config.service)
        # Not the thread that collects: a scrape must not wait for the kernel's tables.
        self._thread = ThreadPoolExecutor(1, "ws-lifecycle-watch")
        self._told: dict[tuple[str, int], Health] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to watch."""
        notify("READY=1")
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def aclose(self) -> None:
        """Watch no more."""
        notify("STOPPING=1")
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        self._thread.shutdown(wait=False, cancel_futures=True)
        if self._lock >= 0:
            os.close(self._lock)

    async def _run(self) -> None:
        while True:
            try:
                await self._look()
            except CollectionError:
                self._live.health = []  # nothing is concluded from not knowing
            except Exception as error:  # noqa: BLE001  # the watch must outlive its faults
                log_fault(error)
            await asyncio.sleep(PERIOD)

    async def _look(self) -> None:
        snapshot = await self._live.look()
        self._live.health = snapshot.health
        failing = [health for health in snapshot.health if health.failing]
        self._log(snapshot.health)
        if not failing:
            notify("WATCHDOG=1", f"STATUS={len(serving(snapshot.health))} workers beat")
        else:
            notify(f"STATUS={failing[0].name}: {failing[0].detail}")
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._thread, self._look_closer, snapshot)
        self._live.show(self._kernel.views)
        if self._spy is not None:
            self._live.spied = await self._spy.look(snapshot.health)

    def _look_closer(self, snapshot: Snapshot) -> None:
        self._kernel.look(snapshot.workers)
        fresh = self._clock() - snapshot.now <= FRESH
        if self._recycler is not None and fresh and self._alone():
            self._recycler.step(snapshot.workers, snapshot.health, snapshot.now)

    def _alone(self) -> bool:
        """Whether this is the one sidecar of the service that sends signals."""
        if self._lock >= 0 and not os.fstat(self._lock).st_nlink:
            os.close(self._lock)  # its file was removed: another may hold the one in its place
            self._lock = -1
        if self._lock < 0:
            with suppress(DirectoryError, OSError), Directory(self._place) as directory:
                fd = directory.open("recycle", os.O_RDWR | os.O_CREAT)
                if try_lock(fd, exclusive=True):
                    self._lock = fd
                else:
                    os.close(fd)
                self._say_who_ends(mine=self._lock >= 0)
        return self._lock >= 0

    def _say_who_ends(self, *, mine: bool) -> None:
        if not mine and not self._stands_by:
            logger.info("another sidecar ends this service's stuck workers; this one stands by")
        elif mine and self._stands_by:
            logger.info("from now on this sidecar ends stuck workers")
        self._stands_by = not mine

    def _log(self, health: list[Health]) -> None:
        """Log which workers became stuck, died, or are well or replaced since the look before."""
        now = {(h.worker, h.uuid): h for h in health if h.reason is not None}
        before, self._told = self._told, now
        for key, found in now.items():
            _say(found, before.get(key))
        for key in before.keys() - now.keys():
            _say_over(before[key], health)


def _say(found: Health, was: Health | None) -> None:
    """Log what is new about a worker that does not serve."""
    if was is None or was.reason != found.reason:
        if found.reason == "dead":
            logger.error("%s died without closing", found.name)
        else:
            logger.error("%s is stuck: %s: %s", found.name, found.reason, found.detail)
    if found.replaced and not (was is not None and was.replaced):
        logger.info("worker %s was replaced", found.worker)


def _say_over(was: Health, health: list[Health]) -> None:
    """Log what became of a worker that did not serve, unless that was said."""
    if any(h.uuid == was.uuid for h in health):
        logger.info("%s is no longer stuck", was.name)
    elif was.reason != "dead":
        logger.info("%s has ended", was.name)
    elif not was.replaced:
        replaced = any(h.worker == was.worker for h in health)
        logger.info("worker %s was %sreplaced", was.worker, "" if replaced else "not ")
