"""The watch over a worker from inside: beat and scan on its loop, the rest in one thread.

The thread looks at loops that do not beat, and does what may take time: log records, the
user's callback, the side file. It is started with the first loop and made anew after a fork.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from asyncio import AbstractEventLoop
from collections import deque
from contextlib import suppress
from contextvars import Context

from ..config import Config
from ..store import layout as at
from ..store.layout import NS
from ..store.worker import Worker
from ..store.workers import close_ended, current, renew, share
from . import faults, reports, sidefile
from .heartbeat import Heartbeat, is_asyncio, running_loop
from .scan import Scanner
from .sidefile import Stack, Stacks
from .stacks import thread_stack
from .stuck import StuckEvent, write_limits

PERIOD = 0.5
SCAN_EVERY = NS
LOOK_FOR_FILE_EVERY = 5 * NS
LOOK_FOR_END_EVERY = 0.05
"""Half of the least time that uvicorn takes to end by SIGTERM, which runs no exit handler."""
MOST_QUEUED = 10_000


def attended(config: Config) -> Worker:
    """Return the worker of this thread, as `store.workers.current`, with its loop under watch."""
    worker = current(config)
    watch = worker.watch
    if watch is None:
        watch = worker.watch = Watch(worker)
    if not watch.heartbeat.is_current():
        loop = running_loop()
        if loop is not None and watch.heartbeat.loop is not loop:
            watch.begin(loop)
            return current(config)  # its first beat may have found a new one
    return worker


def server_stops() -> bool | None:
    """Whether the server of this process was told to stop; None where its handler can't show it.

    uvicorn and gunicorn wait for the open connections before the lifespan hears of it.
    """
    owner = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    stops, lives = getattr(owner, "should_exit", None), getattr(owner, "alive", None)
    if type(stops) is not bool and type(lives) is not bool:
        return None
    return stops is True or lives is False


class Watch:
    """The watch over one worker."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.heartbeat = Heartbeat(worker, self._each)
        self._scanner = Scanner(worker)
        self._events: deque[StuckEvent] = deque(maxlen=MOST_QUEUED)
        self._stacks = Stacks()
        self._changed = False
        self._scan_at = 0
        self._file_at = time.monotonic_ns() + LOOK_FOR_FILE_EVERY
        self._stall = (-1, 0)  # the beat after which the loop hangs, and what was said of it
        config = worker.config
        wanted = config.faulthandler or config.faulthandler_exit
        self._faults = faults.Timer(worker) if wanted else None
        write_limits(worker.segment.header, config)

    # On the loop.

    def begin(self, loop: object) -> None:
        """Watch this loop from now on."""
        self.worker.loop = loop if is_asyncio(loop) else None
        self.heartbeat.start(loop)
        _Thread.watch(self)
        self.worker.serve()
        if self.worker.loop is not None and server_stops() is not None:
            self._look_for_end(self.worker.loop, self.heartbeat.starts)

    def _each(self, now: int) -> None:
        try:
            if self.worker.noted:
                self.worker.publish(now)
            if self._faults is not None:
                self._faults.rearm()
            if now >= self._scan_at:
                self._scan_at = now + SCAN_EVERY
                self._scan(now)
            if now >= self._file_at:
                self._file_at = now + LOOK_FOR_FILE_EVERY
                self._look_for_file()
        except Exception as error:  # noqa: BLE001  # a fault of ours must not end the beat
            reports.log_fault(error)
            self.worker.count_internal_error()

    def _look_for_end(self, loop: AbstractEventLoop, start: int) -> None:
        """Drain once the server is told to stop; a lifespan, where there is one, tells it too.

        Of several servers on one loop the signal's handler is only one's.
        """
        if loop is self.heartbeat.loop and start == self.heartbeat.starts:
            if self.worker.lifespans <= 1 and server_stops():
                self.worker.drain()
            again = self._look_for_end, loop, start
            loop.call_later(LOOK_FOR_END_EVERY, *again, context=Context())

    def _scan(self, now: int) -> None:
        found = self._scanner.scan(now)
        if found.connections is not None and found.connections != self._stacks.connections:
            self._stacks.connections = found.connections
            self._changed = True
        if found.events:
            self._events.extend(found.events)
            _Thread.wake()

    def _look_for_file(self) -> None:
        """Go on in a new segment where nobody can read this one, and another can be had."""
        worker = self.worker
        if worker.segment.unlinked():
            self._renew()
        elif not worker.segment.shared and not worker.draining:
            new = share(worker)
            if new is not None:
                self._go_on_in(new)

    def _renew(self) -> None:
        self._go_on_in(renew(self.worker))

    def _go_on_in(self, new: Worker) -> None:
        loop, self.heartbeat.loop = self.heartbeat.loop, None
        if self._faults is not None:
            self._faults.close()
        watch = new.watch = Watch(new)
        for conversation in list(self.worker.live.values()):
            conversation.move(new)
        watch.begin(loop)
        new.lifespans = self.worker.lifespans

    # In the thread.

    def inspect(self, now: int) -> None:
        """Look at the loop from outside of it, and do what the loop left to do."""
        header = self.worker.segment.header
        if self.heartbeat.stopped():
            self.heartbeat.rest()
        beat_at = header[at.HEARTBEAT_AT]
        if beat_at:
            self._judge(header[at.BEATS], now - beat_at)
        elif self._faults is not None:
            self._faults.rest()
        events = [self._events.popleft() for _ in range(len(self._events))]
        if events:
            reports.report(events, self.worker.config.on_stuck)
        if self._changed:
            self._changed = False
            self._write()

    def _judge(self, beats: int, silent: int) -> None:
        said = self._stall[1] if self._stall[0] == beats else 0
        config = self.worker.config
        levels = (config.stall_megamiss, config.stuck_loop_blocked)
        reached = sum(silent >= seconds * NS for seconds in levels)
        if reached <= said:
            return
        self._stall = (beats, reached)
        stack = Stack(*thread_stack(self.worker.thread.ident or 0))
        self._stacks.loop, self._stacks.loop_beats = stack, beats
        self._changed = True
        slot = str(self.worker.segment.header[at.SLOT])
        event = StuckEvent("loop_blocked", silent / NS, slot, stack=stack.lines, where=stack.where)
        if reached == len(levels):
            self._events.append(event)
        else:
            reports.log_stall(event)

    def _write(self) -> None:
        segment = self.worker.segment
        if segment.directory is not None:
            with suppress(OSError):  # a full disk: the numbers do without
                sidefile.write(segment.directory, segment.name, self._stacks)

    def over(self) -> bool:
        """Whether there is nothing left to watch."""
        return not self.worker.thread.is_alive() or self.worker.watch is not self

    def end(self) -> None:
        """Watch no more, once it is over."""
        if self._faults is not None:
            self._faults.close()
        close_ended()  # or its thread would be missed as a dead worker once the process is killed
        if not self.worker.thread.is_alive():
            del self.heartbeat  # which refers back here, and both to the worker's memory


class _Thread:
    """The one thread of the process; all that it holds is made anew in a forked child."""

    _watches: list[Watch] = []  # noqa: RUF012  # replaced as a whole, never shared by instances
    _wake = threading.Event()
    _lock = threading.Lock()
    _thread: threading.Thread | None = None

    @classmethod
    def watch(cls, watch: Watch) -> None:
        with cls._lock:
            cls._watches = [*(w for w in cls._watches if w is not watch), watch]
            if cls._thread is None:
                thread = threading.Thread(
                    target=cls._run, args=(cls._wake,), name="ws-lifecycle-watchdog", daemon=True
                )
                with suppress(RuntimeError):  # no room for it: beats and scans go on without
                    thread.start()
                    cls._thread = thread

    @classmethod
    def wake(cls) -> None:
        cls._wake.set()

    @classmethod
    def _run(cls, wake: threading.Event) -> None:
        while cls._goes_on(wake):
            wake.wait(PERIOD)
            wake.clear()
            for watch in cls._watches:
                try:
                    watch.inspect(time.monotonic_ns())
                except Exception as error:  # noqa: BLE001  # the thread must outlive its faults
                    reports.log_fault(error)

    @classmethod
    def _goes_on(cls, wake: threading.Event) -> bool:
        with cls._lock:
            over = [watch for watch in cls._watches if watch.over()]
            cls._watches = [watch for watch in cls._watches if watch not in over]
            goes_on = bool(cls._watches) and wake is cls._wake and not sys.is_finalizing()
            if not cls._watches and wake is cls._wake:
                cls._thread = None
        for watch in over:
            watch.end()
        return goes_on

    @classmethod
    def forget(cls) -> None:
        cls._watches, cls._wake, cls._lock = [], threading.Event(), threading.Lock()
        cls._thread = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_Thread.forget)
