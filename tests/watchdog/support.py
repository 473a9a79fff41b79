"""Workers whose words a test writes, and a process table of its own."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ws_lifecycle_metrics.config import Config
from ws_lifecycle_metrics.protocol import STATES
from ws_lifecycle_metrics.store import layout as at
from ws_lifecycle_metrics.store.layout import NS
from ws_lifecycle_metrics.store.reader import Contents, decode
from ws_lifecycle_metrics.store.worker import Worker
from ws_lifecycle_metrics.watchdog.processes import Process, Sockets
from ws_lifecycle_metrics.watchdog.stuck import write_limits

if TYPE_CHECKING:
    from ws_lifecycle_metrics.watchdog.workers import Health, Judge

NOW = 1_000_000 * NS
TICKS = 4711


def state(app: str, server: str) -> int:
    """The word of a record in this pair of states."""
    return next(s.code + 1 for s in STATES if (s.app, s.server) == (app, server))


def make_worker(slot: int = 0, pid: int = 77, **options: object) -> Worker:
    """A worker in memory whose header says what a test wants."""
    worker = Worker(Config(service="test", directory="", **options), None)
    header = worker.segment.header
    write_limits(header, worker.config)
    header[at.SLOT], header[at.PID], header[at.START_TICKS] = slot, pid, TICKS
    header[at.UID] = os.geteuid()
    return worker


def beat(worker: Worker, moment: int) -> None:
    worker.segment.header[at.HEARTBEAT_AT] = moment
    worker.segment.header[at.BEATS] += 1


def read(worker: Worker, *, alive: bool = True) -> Contents:
    return decode(worker.segment.name, bytearray(worker.segment.contents()), alive)


def add_record(worker: Worker, word: int, moment: int = NOW, **words: int) -> memoryview:
    """A record in this state since `moment`, at which everything else happened, too."""
    record = worker.route("/chat").take()
    record[at.SERIAL] = worker.connections = worker.connections + 1
    record[at.OPENED_AT] = record[at.STATE_AT] = record[at.SENT_AT] = moment
    record[at.STATE] = word
    for name, number in words.items():
        record[getattr(at, name)] = number
    return record


@dataclass
class FakeTable:
    """Processes, the use of the processor by their threads, and their sockets."""

    processes: dict[int, Process] = field(default_factory=dict)
    used: dict[int, tuple[int, int]] = field(default_factory=dict)
    found: dict[int, Sockets] = field(default_factory=dict)

    def process(self, pid: int) -> Process | None:
        return self.processes.get(pid)

    def schedule(self, pid: int, thread: int) -> tuple[int, int] | None:
        return self.used.get(pid)

    def sockets(self, pids: list[int]) -> dict[int, Sockets]:
        return {pid: self.found[pid] for pid in pids if pid in self.found}

    def run(self, pid: int, state: str = "S", ticks: int = TICKS) -> None:
        self.processes[pid] = Process(state, 1234, ticks, os.geteuid())


def look(judge: Judge, now: int, *segments: Contents, deaths: int = 0) -> list[Health]:
    return judge.look(segments, Counter({0: deaths} if deaths else {}), now)


def reasons(judge: Judge, now: int, *segments: Contents, deaths: int = 0) -> list[str | None]:
    return [health.reason for health in look(judge, now, *segments, deaths=deaths)]
