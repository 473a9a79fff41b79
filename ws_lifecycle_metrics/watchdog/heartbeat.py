"""The beat of one event loop, by the loop itself: when it came, and how late it was.

A loop that hangs cannot say so. It writes when it last ran, and whoever reads draws the
conclusion; where nothing beats, nobody knows, and nothing is concluded.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from contextvars import Context
from typing import Any

from .. import catalog
from ..store import layout as at
from ..store.layout import NS, WORKER_BLOCK
from ..store.worker import Worker

INTERVAL = 0.25

_DELAY = WORKER_BLOCK[catalog.LOOP_DELAY.name].histogram()
_STALLS = WORKER_BLOCK[catalog.LOOP_STALLS.name].offsets
_STALL_SECONDS = WORKER_BLOCK[catalog.LOOP_STALL_SECONDS.name].offsets

Loop = Any
"""An asyncio event loop, or the token of a trio run; both are compared by identity."""


def running_loop() -> Loop | None:
    """Return the loop that runs in this thread: asyncio's, else trio's, else None."""
    loop = asyncio._get_running_loop()  # documented for frameworks: None instead of an error
    if loop is None and "trio" in sys.modules:
        lowlevel = sys.modules["trio"].lowlevel
        try:
            return lowlevel.current_trio_token()
        except RuntimeError:
            return None
    return loop


def is_asyncio(loop: Loop | None) -> bool:
    """Whether it is a loop of asyncio, uvloop's among them, and neither trio's token nor None."""
    return hasattr(loop, "call_later")


async def give_way() -> None:
    """Let others run first, as a send does that has to wait for the client."""
    loop = running_loop()
    if is_asyncio(loop):
        await asyncio.sleep(0)
    elif loop is not None:
        await sys.modules["trio"].lowlevel.checkpoint()


class Heartbeat:
    """Writes the beats of one loop at a time into its worker's segment.

    `each` is called after every beat with the time, in ns. A pending timer is all that the loop
    holds of it: no task, so nothing has to be cancelled before the loop can close.
    """

    def __init__(
        self,
        worker: Worker,
        each: Callable[[int], None],
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.loop: Loop | None = None
        self.starts = 0
        """Of a loop that comes back after another one the old timers still wait: they end by it."""
        self._worker = worker
        self._each = each
        self._clock = clock
        self._due = 0
        config = worker.config
        levels = (config.stall_miss, config.stall_megamiss, config.stuck_loop_blocked)
        self._levels = [
            (round(seconds * NS), (severity,))
            for seconds, severity in zip(levels, catalog.STALL_SEVERITIES, strict=True)
        ]

    def start(self, loop: Loop) -> None:
        """Beat on this loop from now on, and on no other."""
        self.loop = loop
        self.starts += 1
        self.rest()
        if is_asyncio(loop):
            self._tick(loop, self.starts)
        else:
            lowlevel = sys.modules["trio"].lowlevel
            # A system task ends with the run and is waited for by nobody.
            lowlevel.spawn_system_task(self._trio, loop, context=Context())

    def rest(self) -> None:
        """Say that nobody knows whether the loop runs, as when it has been stopped."""
        self._worker.beats = False
        self._worker.segment.header[at.HEARTBEAT_AT] = 0

    def is_current(self) -> bool:
        """Whether its loop runs: then no other does in the thread of the worker.

        Asked for every scope. To ask asyncio costs a system call on some versions of Python.
        """
        return self._runs() is True

    def stopped(self) -> bool:
        """Whether the loop no longer runs; asked from another thread."""
        return self._runs() is False  # a trio run rests by itself

    def _runs(self) -> bool | None:
        is_running = getattr(self.loop, "is_running", None)
        return None if is_running is None else is_running()

    def beat(self) -> None:
        """Note that the loop runs now, and by how much that is too late."""
        now, header = self._clock(), self._worker.segment.header
        if header[at.HEARTBEAT_AT]:
            self._note_lag(max(0, now - self._due))
        header[at.HEARTBEAT_AT] = now
        header[at.BEATS] += 1
        self._worker.beats = True
        self._due = now + round(INTERVAL * NS)

    def _note_lag(self, lag: int) -> None:
        words = self._worker.words
        self._worker.segment.header[at.LOOP_LAG] = lag
        _DELAY.observe(words, lag)
        reached = [severity for level, severity in self._levels if lag >= level]
        if reached:
            words[_STALLS[reached[-1]]] += 1
            words[_STALL_SECONDS[reached[-1]]] += lag

    def _tick(self, loop: asyncio.AbstractEventLoop, start: int) -> None:
        if loop is not self.loop or start != self.starts:
            return
        try:
            self.beat()
            self._each(self._clock())
            # In a context of its own: the first scope's is not to be kept alive by a timer.
            loop.call_later(INTERVAL, self._tick, loop, start, context=Context())
        except BaseException:
            self.rest()  # a beat that ends for our own fault must not look like a hang
            raise

    async def _trio(self, token: Loop) -> None:
        sleep = sys.modules["trio"].sleep
        try:
            while token is self.loop:
                self.beat()
                self._each(self._clock())
                await sleep(INTERVAL)
        finally:
            if token is self.loop:
                self.rest()
