"""Which stuck process gets a signal, and when: one at a time, and never a healthy one.

All that it knows of processes it asks of a `ProcessTable`; it sends through a function that is
given to it.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..store import layout as at
from ..store.layout import NS
from ..store.process import is_here
from ..store.reader import Contents
from .processes import ProcessTable
from .workers import Health, has_ended

logger = logging.getLogger("ws_lifecycle_metrics")

SIGNALLED = ("loop_blocked", "stopped", "accept_starved")

Signal = Callable[[int, int, int], None]
"""Sends to a pid that started at these ticks a signal's number; raises OSError."""


@dataclass(frozen=True, slots=True)
class Timing:
    """In s: how long a worker has to be stuck, from SIGTERM to SIGKILL, between two workers.

    Each start is put off by up to `jitter`, so that a fleet does not restart at once.
    """

    after: float = 10.0
    grace: float = 10.0
    pause: float = 60.0
    jitter: float = 5.0


@dataclass(slots=True)
class _Case:
    uuid: int
    pid: int
    start_ticks: int
    act_at: int
    warned: bool = False  # SIGTERM was sent


class Recycler:
    """Ends stuck processes; call `step` at each reading.

    `shared` tells of a pid whether something else is well in that process, which is then left.
    """

    def __init__(
        self,
        timing: Timing,
        *,
        send: Signal,
        chance: Callable[[], float],
        table: ProcessTable | None = None,
        uid: int | None = None,
        shared: Callable[[int], bool] = lambda _pid: False,
    ) -> None:
        self._timing = timing
        self._send = send
        self._chance = chance
        self._table = ProcessTable() if table is None else table
        self._shared = shared
        self._uid = os.geteuid() if uid is None else uid
        self._stuck_since: dict[int, int] = {}
        self._spared: set[int] = set()  # of whom the log has said that they are left alone
        self._case: _Case | None = None
        self._rest_until = 0

    def step(self, workers: Sequence[Contents], health: Sequence[Health], now: int) -> None:
        """Go on with the worker at hand, or choose one; `now` in ns."""
        stuck = {h.uuid for h in health if h.failing and h.reason in SIGNALLED}
        since = self._stuck_since
        self._stuck_since = {uuid: since.get(uuid, now) for uuid in stuck}
        self._spared &= stuck
        by_uuid = {worker.uuid: worker for worker in workers}
        if self._case is None and now >= self._rest_until:
            self._case = self._choose(by_uuid, now)
        case = self._case
        if case is None:
            return
        worker = by_uuid.get(case.uuid)
        if worker is None or case.uuid not in stuck or self._obstacle(worker, by_uuid):
            self._end_case(now, rest=case.warned)  # it recovered, if only for a while; or is gone
        elif now >= case.act_at:
            self._signal(case, now)

    def _choose(self, workers: dict[int, Contents], now: int) -> _Case | None:
        slots = {uuid: worker.header[at.SLOT] for uuid, worker in workers.items()}
        since = self._stuck_since
        for uuid in sorted(since.keys() & slots, key=lambda uuid: (since[uuid], slots[uuid])):
            worker = workers[uuid]
            if now - since[uuid] < self._timing.after * NS:
                continue
            header = worker.header
            obstacle = self._obstacle(worker, workers)
            if obstacle is None:
                delay = round(self._chance() * self._timing.jitter * NS)
                return _Case(uuid, header[at.PID], header[at.START_TICKS], now + delay)
            if uuid not in self._spared:
                self._spared.add(uuid)
                told = slots[uuid], header[at.PID], obstacle
                logger.warning("worker %d (pid %d) is stuck and gets no signal: %s", *told)
        return None

    def _obstacle(self, worker: Contents, workers: dict[int, Contents]) -> str | None:
        """Return why it may get no signal: who has its pid now, and what else lives there."""
        header = worker.header
        pid = header[at.PID]
        if not is_here(header):
            return "its pid is another container's or machine's; share the process ids"
        if pid <= 1 or pid == os.getpid():
            return "pid 1 and the sidecar's own process are never ended"
        process = self._table.process(pid)
        if process is None or not process.start_ticks == header[at.START_TICKS] != 0:
            return "nobody can tell whether the pid is still its process"
        if self._uid != header[at.UID] or process.uid != self._uid:
            return "it is another user's"
        # Of several loops in one process a healthy one is not ended for the others' sake.
        same = [w for w in workers.values() if w.header[at.PID] == pid and is_here(w.header)]
        same = [w for w in same if not has_ended(w.header)]
        if not all(w.uuid in self._stuck_since for w in same) or self._shared(pid):
            return "another loop in its process is well"
        return None

    def _signal(self, case: _Case, now: int) -> None:
        number = signal.SIGKILL if case.warned else signal.SIGTERM
        logger.warning("process %d is stuck and gets %s", case.pid, number.name)
        try:
            self._send(case.pid, case.start_ticks, number)
        except OSError as error:
            logger.warning("process %d: %s", case.pid, error.strerror)
            self._end_case(now, rest=True)
            return
        if case.warned:
            self._end_case(now, rest=True)
        else:
            case.warned, case.act_at = True, now + round(self._timing.grace * NS)

    def _end_case(self, now: int, *, rest: bool) -> None:
        self._case = None
        if rest:
            self._rest_until = now + round(self._timing.pause * NS)


def send(pid: int, start_ticks: int, number: int) -> None:
    """Send a signal to the process that started at these ticks, and to no later one."""
    # Some builds of Python know no such descriptor, uv's for one: they look just before.
    fd = os.pidfd_open(pid) if hasattr(signal, "pidfd_send_signal") else -1
    try:
        # What the descriptor stands for cannot be exchanged any more: now look who it is.
        process = ProcessTable().process(pid)
        if process is None or process.start_ticks != start_ticks:
            raise ProcessLookupError(3, "the process is another one by now")
        if fd < 0:
            os.kill(pid, number)
        else:
            signal.pidfd_send_signal(fd, number)
    finally:
        if fd >= 0:
            os.close(fd)
