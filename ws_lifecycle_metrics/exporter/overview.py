"""A service in a few numbers, and its connections as plain objects: the same for all who ask."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from .. import catalog
from ..catalog import Metric
from ..labels import OTHER
from ..store.connections import Ranked
from ..store.snapshot import Connection, Snapshot
from ..watchdog.workers import Health, serving


@dataclass(frozen=True, slots=True)
class RouteOverview:
    """One route: scopes that have not ended, by state, and violations so far."""

    route: str
    active: dict[str, int]
    violations: int

    @property
    def unused(self) -> bool:
        """Whether nothing was seen of it."""
        return not any(self.active.values()) and not self.violations


@dataclass(frozen=True, slots=True)
class Overview:
    """A service: its workers, scopes that have not ended, by state, and violations so far.

    `stuck` are connections, `failing` workers.
    """

    workers: int
    active: dict[str, int]
    violations: int
    stuck: int
    routes: list[RouteOverview]
    failing: list[Health]


def overview(snapshot: Snapshot) -> Overview:
    """Add up a snapshot by route."""
    series = {family.metric.name: family.series for family in snapshot.families()}
    violations: Counter[str] = Counter()
    for labels, value in series[catalog.PROTOCOL_VIOLATIONS.name].items():
        violations[_route(catalog.PROTOCOL_VIOLATIONS, labels)] += _whole(value)
    active: dict[str, dict[str, int]] = {}
    for labels, value in series[catalog.ACTIVE_CONNECTIONS.name].items():
        route = _route(catalog.ACTIVE_CONNECTIONS, labels)
        states = active.setdefault(route, dict.fromkeys(catalog.STATE_LABELS, 0))
        states[labels[catalog.ACTIVE_CONNECTIONS.labels.index("state")]] += _whole(value)
    routes = [RouteOverview(name, states, violations[name]) for name, states in active.items()]
    return Overview(
        workers=len(serving(snapshot.health)),
        active={state: sum(r.active[state] for r in routes) for state in catalog.STATE_LABELS},
        violations=violations.total(),
        stuck=sum(map(_whole, series[catalog.STUCK_CONNECTIONS.name].values())),
        failing=[health for health in snapshot.health if health.failing],
        routes=sorted(routes, key=lambda r: (r.route == OTHER, r.route)),
    )


def _route(metric: Metric, labels: tuple[str, ...]) -> str:
    return labels[metric.labels.index("http_route")]


def _whole(value: object) -> int:
    return int(value) if isinstance(value, (int, float)) else 0


def connections_object(
    service: str, snapshot: Snapshot, connections: Ranked, limit: int, offset: int = 0
) -> dict[str, Any]:
    """Return a part of the connections for JSON; `total` counts all. Ages are in seconds."""
    return {
        "service": service,
        "time": round(snapshot.wall, 3),
        "workers": len(serving(snapshot.health)),
        "stuck_workers": [
            {"worker": h.worker, "pid": h.pid, "reason": h.reason, "where": loop.where}
            for h, loop in snapshot.stuck_workers()
        ],
        "total": len(connections),
        "offset": offset,
        "limit": limit,
        "connections": [_as_object(c) for c in connections.page(offset, limit)],
    }


def _as_object(connection: Connection) -> dict[str, Any]:
    # The third decimal is a millisecond: what comes after it is noise.
    return {k: round(v, 3) if type(v) is float else v for k, v in asdict(connection).items()}
