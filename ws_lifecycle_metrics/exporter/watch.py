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
from ..store.snapshot import Snapshot
from ..telemetry.logs import log_fault
from ..watchdog import recycle
from ..watchdog.kernel import Kernel
from ..watchdog.workers import Health
from .live import CollectionError, Live
from .notify import notify
from .spy import Spy

PERIOD = 1.0

logger = logging.getLogger("ws_lifecycle_metrics")


class Watch:
    """Collects, looks at the kernel's sockets, tells systemd and recycles, if it is to."""

    def __init__(self, config: ExporterConfig, live: Live) -> None:
        self._live = live
        self._kernel = Kernel()
        self._spy = Spy() if config.py_spy else None
        self._recycler: recycle.Recycler | None = None
        self._lock = -1
        if config.recycle_stuck:
            timing = recycle.Timing(
                after=config.recycle_after,
                grace=config.recycle_grace,
                pause=config.recycle_pause,
                jitter=config.recycle_jitter,
            )
            self._recycler = recycle.Recycler(timing, send=recycle.send, chance=random.random)
        self._place = service_path(config.directory, config.service)
        # Not the thread that collects: a scrape must not wait for the kernel's tables.
        self._thread = ThreadPoolExecutor(1, "ws-lifecycle-watch")
        self._told: dict[str, str] = {}
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
            notify("WATCHDOG=1", f"STATUS={len(snapshot.workers)} workers beat")
        else:
            notify(f"STATUS=worker {failing[0].worker}: {failing[0].detail}")
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._thread, self._look_closer, snapshot)
        self._live.show(self._kernel.views)
        if self._spy is not None:
            self._live.spied = await self._spy.look(snapshot.health)

    def _look_closer(self, snapshot: Snapshot) -> None:
        self._kernel.look(snapshot.workers)
        if self._recycler is not None and self._alone():
            self._recycler.step(snapshot.workers, snapshot.health, time.monotonic_ns())

    def _alone(self) -> bool:
        """Whether this is the one sidecar of the service that sends signals."""
        if self._lock < 0:
            with suppress(DirectoryError, OSError), Directory(self._place) as directory:
                fd = directory.open("recycle", os.O_RDWR | os.O_CREAT)
                if try_lock(fd, exclusive=True):
                    self._lock = fd
                else:
                    os.close(fd)
        return self._lock >= 0

    def _log(self, health: list[Health]) -> None:
        """Log what became stuck, or well again, since the look before."""
        now = {f"{h.worker}/{h.uuid}": h for h in health if h.failing}
        told = {key: h.reason or "" for key, h in now.items()}
        for key, reason in told.items():
            if self._told.get(key) != reason:
                self._say(logger.error, "worker %s (pid %d) is stuck: %s: %s", now[key])
        for key in self._told.keys() - told.keys():
            logger.info("worker %s is no longer stuck", key.partition("/")[0])
        self._told = told

    def _say(self, log: Callable[..., None], text: str, health: Health) -> None:
        log(text, health.worker, health.pid, health.reason, health.detail)
