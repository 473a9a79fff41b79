"""The watchdog's gauges, computed when they are read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from .. import catalog
from ..store import layout as at
from ..store.layout import NS
from ..store.process import namespace
from ..store.reader import Contents
from . import stuck
from .workers import Health, serving

Labels = tuple[str, ...]

_SILENT = ("loop_blocked", "stopped")


def stuck_records(worker: Contents, health: Health) -> Iterator[tuple[int, memoryview, str]]:
    """Yield the stuck records of a worker: the route's number, the record and the reason."""
    found = []
    for owner, records in worker.records:
        for record, reason in stuck.find(records, health.clock, worker.header):
            found.append(record[at.SERIAL])
            yield owner, record, reason
    if health.ghosts:
        yield from _ghosts(worker, health.ghosts, set(found))


def _ghosts(
    worker: Contents, number: int, known: set[int]
) -> Iterator[tuple[int, memoryview, str]]:
    """Yield the most silent connections: the kernel tells how many have no socket, not which."""
    quiet = [
        (max(record[at.OPENED_AT], record[at.RECEIVED_AT], record[at.SENT_AT]), owner, record)
        for owner, records in worker.records
        for start in range(0, len(records), at.RECORD_WORDS)
        if (record := records[start : start + at.RECORD_WORDS])[at.STATE] not in (0, at.ORPHANED)
    ]
    quiet.sort(key=lambda found: found[0])
    for _, owner, record in quiet[:number]:
        if record[at.SERIAL] not in known:
            yield owner, record, "ghost"


def stuck_connections(
    workers: Sequence[Contents], health: dict[int, Health], routes: Iterable[str]
) -> dict[Labels, float]:
    """Return the series of the gauge of stuck connections."""
    found: Counter[Labels] = Counter(
        {(route, reason): 0 for route in routes for reason in catalog.STUCK_REASONS}
    )
    for worker in workers:
        if worker.uuid in health:
            for owner, _, reason in stuck_records(worker, health[worker.uuid]):
                found[worker.routes[owner][0], reason] += 1
    return dict(found)


def worker_gauges(health: Sequence[Health], wall: float) -> dict[str, dict[Labels, float]]:
    """Return the series of the gauges of workers, by the metric's name."""
    living = [h for h in health if h.reason != "dead"]
    stuck_series: dict[Labels, float] = {
        (h.worker, reason): 0.0 for h in health for reason in catalog.WORKER_STUCK_REASONS
    }
    stuck_series.update({(h.worker, h.reason): 1.0 for h in health if h.reason is not None})
    seen = [(h.worker, h.sockets) for h in living if h.sockets is not None]
    return {
        catalog.WORKER_STUCK.name: stuck_series,
        catalog.WORKER_HEARTBEAT.name: {
            (h.worker,): wall - h.beat_age for h in living if h.beat_age is not None
        },
        catalog.WORKER_SOCKETS.name: {
            (worker, state): sockets.states.get(state, 0)
            for worker, sockets in seen
            for state in catalog.SOCKET_STATES
        },
        catalog.WORKER_ACCEPT_QUEUE.name: {
            (worker,): sockets.accept_queue for worker, sockets in seen
        },
        catalog.WORKERS_REPORTING.name: {
            (): sum(h.beat_age is not None and h.reason not in _SILENT for h in serving(health))
        },
    }


def clock_of(worker: Contents, health: dict[int, Health], now: int, wall: float) -> int:
    """Return a worker's monotonic time; of one that was not judged, by the clocks in common."""
    known = health.get(worker.uuid)
    if known is not None and worker.header[at.HEARTBEAT_AT]:
        return known.clock
    if worker.header[at.TIME_NAMESPACE] == namespace("time"):
        return now
    lived = wall - worker.header[at.CREATED_WALL] / NS
    return int(worker.header[at.CREATED_AT]) + max(0, round(lived * NS))
