"""All numbers of a service at one moment, from the words of its workers.

Prometheus, OpenTelemetry, the console and the alerts read this, so they cannot disagree.
"""

from __future__ import annotations

import functools
import logging
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from itertools import compress

from .. import catalog
from ..catalog import METRICS, Kind, Metric
from ..config import Config
from ..labels import OTHER
from . import archive
from . import layout as at
from .directory import Directory, DirectoryError, service_path
from .process import namespace
from .reader import Contents, Reader
from .totals import Totals, add_segment, column, merge, state_label
from .worker import unshared

logger = logging.getLogger("ws_lifecycle_metrics")

Labels = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Histogram:
    """A histogram's value: `counts` of each bucket and of what is above the last; `sum` in s."""

    counts: tuple[int, ...]
    sum: float


@dataclass(frozen=True, slots=True)
class Family:
    """A metric and its series: label values, in the order of `metric.labels`, to value."""

    metric: Metric
    series: dict[Labels, float | Histogram]


@dataclass(frozen=True, slots=True)
class Connection:
    """One connection that has not ended. Ages are in seconds.

    `waits_for` is where the application is: "receive", "send" or "application".
    """

    worker: str
    pid: int
    id: int
    route: str
    subprotocol: str
    state: str
    age: float
    in_state: float
    silent: float
    waits_for: str
    received_messages: int
    received_bytes: int
    sent_messages: int
    sent_bytes: int
    violations: int


@dataclass(slots=True)
class Snapshot:
    """What `Source.take` read: living workers' segments and the totals of all, dead ones too."""

    now: int  # CLOCK_MONOTONIC, ns
    wall: float
    workers: list[Contents]
    totals: Totals
    degraded: bool
    skipped: dict[str, str] = field(default_factory=dict)
    duration: float = 0.0

    def families(self) -> Iterator[Family]:
        """Yield every metric of the catalogue with all its series, known ones at 0."""
        routes = self._routes()
        gauges = self._gauges(routes)
        for metric in METRICS.values():
            if metric.kind is Kind.GAUGE:
                yield Family(metric, gauges[metric.name])
            else:
                yield Family(metric, self._counted(metric, routes))

    def _routes(self) -> list[str]:
        live = {route for worker in self.workers for route, _ in worker.routes.values()}
        dead = {labels[0] for name, labels in self.totals if "http_route" in METRICS[name].labels}
        return sorted(live | dead | {OTHER})

    def _counted(self, metric: Metric, routes: list[str]) -> dict[Labels, float | Histogram]:
        owners: list[Labels]
        if "http_route" in metric.labels:
            owners = [(route,) for route in routes]
        elif "worker" in metric.labels:
            owners = [(_slot(worker),) for worker in self.workers]
        else:
            owners = [()]
        none = [0] * at.words_of(metric)
        found = {(*owner, *labels): none for owner in owners for labels in metric.series}
        found.update(
            (labels, words) for (name, labels), words in self.totals.items() if name == metric.name
        )
        if metric.kind is Kind.COUNTER:
            return {labels: words[0] for labels, words in found.items()}
        return {
            labels: Histogram(tuple(words[:-1]), words[-1] / at.NS)
            for labels, words in found.items()
        }

    def _gauges(self, routes: list[str]) -> dict[str, dict[Labels, float | Histogram]]:
        active, oldest = self._active(routes)
        return {
            catalog.ACTIVE_CONNECTIONS.name: dict(active),
            catalog.OLDEST_STATE.name: dict(oldest),
            catalog.WORKER_START.name: {
                (_slot(w),): w.header[at.CREATED_WALL] / at.NS for w in self.workers
            },
            catalog.WORKER_ACTIVE.name: {
                (_slot(w),): sum(1 for _, block in w.records for s in column(block, at.STATE) if s)
                for w in self.workers
            },
            catalog.WORKERS_REPORTING.name: {(): len(self.workers)},
            catalog.EXPORTER_TIME.name: {(): self.wall},
            catalog.SWITCHED_OFF.name: {
                (): sum(1 for w in self.workers if w.header[at.SWITCHED_OFF_SINCE])
            },
            catalog.STORAGE_DEGRADED.name: {(): int(self.degraded or self._full())},
            catalog.SKIPPED_SEGMENTS.name: {(): len(self.skipped)},
            catalog.COLLECT_DURATION.name: {(): self.duration},
            catalog.COLLECTOR_SUCCESS.name: {(): 1},
            catalog.BUILD_INFO.name: {(package_version(),): 1},
        }

    def _full(self) -> bool:
        return any(worker.header[at.FULL] for worker in self.workers)

    def _active(self, routes: list[str]) -> tuple[Counter[Labels], dict[Labels, float]]:
        active: Counter[Labels] = Counter(
            {
                (route, subprotocol, state): 0
                for route in routes
                for (subprotocol, state) in catalog.ACTIVE_CONNECTIONS.series
            }
        )
        oldest: dict[Labels, float] = dict.fromkeys(catalog.OLDEST_STATE.series, 0.0)
        for worker in self.workers:
            for owner, records in worker.records:
                route = worker.routes[owner][0]
                states = column(records, at.STATE)
                pairs = Counter(
                    compress(zip(column(records, at.SUBPROTOCOL), states, strict=True), states)
                )
                for (subprotocol, state), number in pairs.items():
                    name = worker.subprotocols.get(subprotocol - 1, "")
                    active[route, name, state_label(state)] += number
                self._note_oldest(worker, records, oldest)
        return active, oldest

    def _note_oldest(
        self, worker: Contents, records: memoryview, oldest: dict[Labels, float]
    ) -> None:
        states = column(records, at.STATE)
        first: dict[int, int] = {}
        for state, since in compress(
            zip(states, column(records, at.STATE_AT), strict=True), states
        ):
            if since < first.get(state, since + 1):
                first[state] = since
        for state, since in first.items():
            label = (state_label(state),)
            entered = self.wall - self._age(worker, since)
            oldest[label] = min(oldest[label] or entered, entered)

    def _age(self, worker: Contents, moment: int) -> float:
        """Return the seconds since `moment` of a worker's clock, never less than 0."""
        if worker.header[at.TIME_NAMESPACE] == namespace("time"):
            return max(0, self.now - moment) / at.NS
        # Its monotonic clock has another origin; its wall clock is the one we have in common.
        began = self.wall - worker.header[at.CREATED_WALL] / at.NS
        return max(0.0, began - (moment - worker.header[at.CREATED_AT]) / at.NS)

    def connections(self) -> list[Connection]:
        """Return all connections that have not ended, the longest in a closing state first."""
        found = [
            self._connection(worker, worker.routes[owner][0], records[i : i + at.RECORD_WORDS])
            for worker in self.workers
            for owner, records in worker.records
            for i in range(0, len(records), at.RECORD_WORDS)
            if records[i + at.STATE]
        ]
        order = {"closing": 0, "connecting": 1, "open": 2}
        return sorted(found, key=lambda c: (order[c.state], -c.in_state, c.worker, c.id))

    def _connection(self, worker: Contents, route: str, record: memoryview) -> Connection:
        received = sum(record[word] for word in at.RECEIVED)
        sent = sum(record[word] for word in at.SENT)
        opened = record[at.OPENED_AT]
        # A receive() may stay open for good while others send: sending is the narrower place.
        waits = "send" if at.sends_pending(record) else ""
        waits = waits or ("receive" if at.receives_pending(record) else "application")
        return Connection(
            worker=_slot(worker),
            pid=worker.header[at.PID],
            id=record[at.SERIAL],
            route=route,
            subprotocol=worker.subprotocols.get(record[at.SUBPROTOCOL] - 1, ""),
            state=state_label(record[at.STATE]),
            age=self._age(worker, opened),
            in_state=self._age(worker, record[at.STATE_AT]),
            silent=self._age(worker, max(opened, record[at.RECEIVED_AT], record[at.SENT_AT])),
            waits_for=waits,
            received_messages=max(0, received - record[at.BASE_RECEIVED]),
            received_bytes=max(0, record[at.RECEIVED_BYTES] - record[at.BASE_RECEIVED_BYTES]),
            sent_messages=max(0, sent - record[at.BASE_SENT]),
            sent_bytes=max(0, record[at.SENT_BYTES] - record[at.BASE_SENT_BYTES]),
            violations=record[at.VIOLATIONS],
        )


def _slot(worker: Contents) -> str:
    return str(worker.header[at.SLOT])


@functools.cache
def package_version() -> str:
    """Return the version of this package, or "unknown" where it is not installed."""
    try:
        return version("ws-lifecycle-metrics")
    except PackageNotFoundError:
        return "unknown"


class Source:
    """Takes snapshots of a service: of its directory and of this process's own memory."""

    def __init__(self, config: Config | None = None) -> None:
        self.config = Config() if config is None else config
        self._reader = Reader()

    def take(self) -> Snapshot:
        """Read all segments now; what cannot be read is left out and named, never raised.

        Raises `OSError` only where this process is out of descriptors or memory.
        """
        began = time.perf_counter()
        archived = archive.Archive()
        ended, segments = unshared(self.config)
        degraded = bool(segments or ended)
        skipped: dict[str, str] = {}
        path = service_path(self.config.directory, self.config.service)
        try:
            with Directory(path, create=True) as directory:
                archived, shared = archive.read(directory, self._reader)
                segments += shared
                skipped = self._reader.skipped
                if not all(contents.alive for contents in shared):
                    archive.fold(directory, self._reader)
        except DirectoryError as error:
            degraded = True
            logger.debug("no shared segments: %s", error)
        snapshot = Snapshot(
            now=time.monotonic_ns(),
            wall=time.time(),
            workers=[contents for contents in segments if contents.alive],
            totals=archived.totals,
            degraded=degraded,
            skipped=skipped,
        )
        merge(snapshot.totals, ended)
        for contents in segments:
            add_segment(snapshot.totals, contents)
        snapshot.duration = time.perf_counter() - began
        return snapshot
