"""All numbers of a service at one moment, from the words of its workers.

Prometheus, OpenTelemetry, the console and the alerts read this, so they cannot disagree.
"""

from __future__ import annotations

import functools
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from .. import catalog
from ..catalog import METRICS, Kind, Metric
from ..config import Config, checked
from ..watchdog import sidefile
from ..watchdog.gauges import clock_of, stuck_connections, worker_gauges
from ..watchdog.kernel import View
from ..watchdog.sidefile import Stack, Stacks
from ..watchdog.workers import Health, Judge
from . import archive, outdated
from . import layout as at
from .connections import Connection as Connection
from .connections import Ranked, rank, slot
from .directory import Directory, DirectoryError, service_path
from .exemplars import Exemplar, Key, collect
from .reader import Contents, Reader
from .series import Series, active_states, oldest_states, open_connections, orphans
from .totals import Totals, add_segment, counted_here, merge, state_label
from .version import package_version as package_version
from .workers import observed, own, publish, taking, unshared

logger = logging.getLogger("ws_lifecycle_metrics")

Labels = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Histogram:
    """A histogram's value: `counts` of each bucket and of what is above the last; `sum` in s.

    `exemplars` are one a bucket, None where there is none; empty: nothing was traced.
    """

    counts: tuple[int, ...]
    sum: float
    exemplars: tuple[Exemplar | None, ...] = ()


@dataclass(frozen=True, slots=True)
class Family:
    """A metric and its series: label values, in the order of `metric.labels`, to value."""

    metric: Metric
    series: dict[Labels, float | Histogram]


@dataclass(slots=True)
class Snapshot:
    """What `Source.take` read: living workers' segments and the totals of all, dead ones too."""

    now: int  # CLOCK_MONOTONIC, ns
    wall: float
    workers: list[Contents]
    totals: Totals
    degraded: bool
    since: int  # Unix time, ns, from which the totals count
    skipped: dict[str, str] = field(default_factory=dict)
    unread: bool = False  # the directory cannot be used, so nobody knows what was counted
    duration: float = 0.0
    health: list[Health] = field(default_factory=list)
    stacks: dict[int, Stacks] = field(default_factory=dict)
    healths: dict[int, Health] = field(init=False)  # of the living, by uuid

    def __post_init__(self) -> None:
        self.healths = {health.uuid: health for health in self.health if health.reason != "dead"}

    def families(self) -> Iterator[Family]:
        """Yield every metric of the catalogue with all its series, known ones at 0.

        Counters that cannot be read have none: 0 would be a fall, and what comes after it an
        increase by all that was ever counted.
        """
        series = Series(self.workers, self.totals)
        gauges, traced = self._gauges(series), collect(self.workers)
        counted: dict[str, dict[Labels, list[int]]] = {}
        for (name, labels), words in self.totals.items():
            counted.setdefault(name, {})[labels] = words
        for metric in METRICS.values():
            if metric.kind is Kind.GAUGE:
                yield Family(metric, gauges[metric.name])
            else:
                known = () if self.unread else series.known(metric)
                found = dict.fromkeys(known, [0] * at.words_of(metric))
                found.update(counted.get(metric.name, {}))
                yield Family(metric, _values(metric, found, traced))

    def _gauges(self, series: Series) -> dict[str, dict[Labels, float | Histogram]]:
        active, oldest = self._active(series)
        degraded = self.degraded or any(worker.header[at.FULL] for worker in self.workers)
        return {
            catalog.ACTIVE_CONNECTIONS.name: dict(active),
            catalog.OLDEST_STATE.name: dict(oldest),
            catalog.WORKER_START.name: {
                (slot(w),): w.header[at.CREATED_WALL] / at.NS for w in self.workers
            },
            catalog.WORKER_ACTIVE.name: {(slot(w),): open_connections(w) for w in self.workers},
            catalog.GRAPHQL_ACTIVE.name: dict(series.active_operations()),
            catalog.SUBSCRIPTION_ORPHANS.name: {(): orphans(self.workers)},
            catalog.STUCK_CONNECTIONS.name: dict(
                stuck_connections(self.workers, self.healths, sorted(series.routes))
            ),
            **{name: dict(found) for name, found in worker_gauges(self.health, self.wall).items()},
            # By this clock, too, alerts know since when a target's counters are told.
            catalog.EXPORTER_TIME.name: {} if self.unread else {(): self.wall},
            catalog.SWITCHED_OFF.name: {
                (): sum(1 for w in self.workers if w.header[at.SWITCHED_OFF_SINCE])
            },
            catalog.STORAGE_DEGRADED.name: {(): int(degraded)},
            catalog.SKIPPED_SEGMENTS.name: {(): len(self.skipped)},
            catalog.COLLECT_DURATION.name: {(): self.duration},
            catalog.COLLECTOR_SUCCESS.name: {(): 1},
            catalog.BUILD_INFO.name: {(package_version(),): 1},
        }

    def _active(self, series: Series) -> tuple[Counter[Labels], dict[Labels, float]]:
        active: Counter[Labels] = Counter(
            dict.fromkeys(series.known(catalog.ACTIVE_CONNECTIONS), 0)
        )
        oldest: dict[Labels, float] = dict.fromkeys(catalog.OLDEST_STATE.series, 0.0)
        for worker in self.workers:
            for (owner, records), states in zip(worker.records, worker.states(), strict=True):
                route = worker.routes[owner][0]
                found = active_states(worker, records, states)
                for (subprotocol, state), number in found.items():
                    active[route, subprotocol, state_label(state)] += number
                for state, since in oldest_states(records, states).items():
                    label = (state_label(state),)
                    entered = self.wall - self.age(worker, since)
                    oldest[label] = min(oldest[label] or entered, entered)
        return active, oldest

    def age(self, worker: Contents, moment: int) -> float:
        """Return the seconds since `moment` of a worker's clock, never less than 0."""
        return max(0, self.clock(worker) - moment) / at.NS

    def clock(self, worker: Contents) -> int:
        """Return a worker's monotonic time at this moment, in ns."""
        return clock_of(worker, self.healths, self.now, self.wall)

    def stuck_workers(self) -> list[tuple[Health, Stack]]:
        """Return the living workers that do not serve, each with where its loop hangs."""
        return [(h, self.hangs_at(h)) for h in self.healths.values() if h.reason is not None]

    def hangs_at(self, health: Health) -> Stack:
        """Return where the loop of a worker hangs; empty where it does not, or nobody told."""
        told = self.stacks.get(health.uuid, Stacks())
        beats = (w.header[at.BEATS] for w in self.workers if w.uuid == health.uuid)
        # The stack of an earlier stall would mislead; while the GIL is held nobody takes another.
        hangs = health.reason == "loop_blocked" and told.loop_beats in beats
        return told.loop if hangs else Stack()

    def ranked(self) -> Ranked:
        """Return the connections that have not ended, worst first, each made when asked for."""
        return rank(self)

    def connections(self) -> list[Connection]:
        """Return all connections that have not ended, in the order of `ranked`."""
        return self.ranked().page()


def _values(
    metric: Metric, found: dict[Labels, list[int]], traced: Mapping[Key, list[Exemplar | None]]
) -> dict[Labels, float | Histogram]:
    """Return what the words of a metric's series mean."""
    if metric.kind is Kind.COUNTER:
        if metric.unit == "s":
            return {labels: words[0] / at.NS for labels, words in found.items()}
        return {labels: words[0] for labels, words in found.items()}
    return {
        labels: Histogram(
            tuple(words[:-1]),
            words[-1] / at.NS,
            tuple(traced.get((metric.name, labels), ())),
        )
        for labels, words in found.items()
    }


class Source:
    """Takes snapshots of a service: of its directory and of this process's own memory.

    Any thread may ask; of several at once each waits for its turn, as what it remembers is of one.
    Without `config` it is the one of this process's middleware, be that made before or after.
    """

    def __init__(self, config: Config | None = None, *, period: float | None = None) -> None:
        self._config = None if config is None else checked(config)
        self._reader = Reader()
        self._period = period
        self._refused = ""
        self.views: Mapping[int, View] = {}
        """The sockets of the workers' processes by pid, where somebody reads them."""

    @property
    def config(self) -> Config:
        """Which service is read, and where."""
        return observed() if self._config is None else self._config

    @functools.cached_property
    def _judge(self) -> Judge:
        return Judge(death_shown=self.config.death_shown, period=self._period)

    def take(self) -> Snapshot:
        """Read all segments now; what cannot be read is left out and named, never raised.

        Raises `OSError` only where this process is out of descriptors or memory.
        """
        return self._in_turn(self._take)

    def take_own(self) -> Snapshot:
        """Read the workers of this process alone, as where each process exports its own."""
        return self._in_turn(self._take_own)

    def _in_turn(self, take: Callable[[Config], Snapshot]) -> Snapshot:
        config = self.config
        publish(config)
        with taking():
            began = time.perf_counter()
            snapshot = take(config)
            snapshot.duration = time.perf_counter() - began
            return snapshot

    def _take(self, config: Config) -> Snapshot:
        archived = archive.Archive()
        ended, segments = unshared(config)
        degraded, unread = bool(segments or ended), False
        skipped: dict[str, str] = {}
        stacks: dict[int, Stacks] = {}
        try:
            directory = Directory.existing(service_path(config.directory, config.service))
            if directory is not None:
                with directory:
                    self._refused = ""
                    archived, shared = self._take_shared(directory)
                    stacks = {s.uuid: sidefile.read(directory, s.name) for s in shared if s.alive}
                segments += shared
                skipped = self._reader.skipped
        except DirectoryError as error:
            degraded, unread = True, not (segments or ended)
            # Once, not at each scrape; where a worker of this process writes, it has said so.
            if not segments and str(error) != self._refused:
                self._refused = str(error)
                logger.warning("no shared segments are read: %s", error)
        snapshot = self._snapshot(segments, archived, degraded, skipped, stacks)
        merge(snapshot.totals, ended)
        snapshot.unread = unread
        return snapshot

    def _take_own(self, config: Config) -> Snapshot:
        segments, shared = own(config)
        return self._snapshot(segments, archive.Archive(), not shared)

    def _take_shared(self, directory: Directory) -> tuple[archive.Archive, list[Contents]]:
        archived, shared = archive.read(directory, self._reader)
        outdated.remove(directory, self._reader.outdated)
        dead = not all(contents.alive for contents in shared)
        if dead or archive.left_over(directory, archived):
            archive.fold(directory, self._reader)
        return archived, shared

    def _snapshot(
        self,
        segments: list[Contents],
        archived: archive.Archive,
        degraded: bool,
        skipped: Mapping[str, str] | None = None,
        stacks: Mapping[int, Stacks] | None = None,
    ) -> Snapshot:
        now, wall = time.monotonic_ns(), time.time()
        made = [archived.since, *(int(contents.header[at.CREATED_WALL]) for contents in segments)]
        snapshot = Snapshot(
            now=now,
            wall=wall,
            workers=[contents for contents in segments if contents.alive],
            totals=archived.totals,
            degraded=degraded,
            # Not after this moment, wherever the clock was set meanwhile.
            since=min(filter(None, (*made, round(wall * at.NS)))),
            skipped=dict(skipped or {}),
            health=self._judge.look(segments, archived.deaths, now, self.views),
            stacks=dict(stacks or {}),
        )
        for contents in segments:
            add_segment(snapshot.totals, contents)
        merge(snapshot.totals, counted_here())
        return snapshot
