"""An hour of a service in which things go wrong, made up and the same each time.

Two hosts with four workers each. At 15 minutes a worker of the second host dies and is replaced.
At 20 minutes the clean-up of subscriptions on the first host begins to hang: connections stay in
closing. At 52 minutes the event loop of its worker 2 is blocked for good.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from ws_lifecycle_metrics import catalog as m
from ws_lifecycle_metrics.catalog import Metric

END = 1_767_268_800  # noon of a day, UTC
SPAN, STEP = 3600, 15
JOB, HOSTS, WORKERS = "chat", ("web-1:10464", "web-2:10464"), 4
ROUTES = {"/graphql": 6.0, "/chat/{room}": 3.0, "other": 0.02}
OPERATIONS = {"OrderStatus": 3.0, "Prices": 2.0, "Typing": 1.0}
KILLED, LEAK, BLOCKED = 900, 1200, 3120
LOST = 96
HUNG, DEAD = (HOSTS[0], "2"), (HOSTS[1], "3")

Labels = dict[str, str]
Value = Callable[[float], float]


def wave(t: float, phase: float = 0.0) -> float:
    """Traffic between 0.7 and 1.3 with two rhythms, so that lines are not rulers."""
    return 1 + 0.2 * math.sin(t / 500 + phase) + 0.1 * math.sin(t / 61 + 3 * phase)


def total_of(rate: float, phase: float = 0.0) -> Value:
    """Return the integral of a rate that follows the wave."""

    def value(t: float) -> float:
        t += 7200
        slow = -100 * math.cos(t / 500 + phase)
        return math.floor(max(0.0, rate * (t + slow - 6.1 * math.cos(t / 61 + 3 * phase) + 200)))

    return value


def ramp(start: float, slope: float, end: float = 1e9) -> Value:
    """Return a count that rises from `start`, and falls to 0 at `end`."""
    return lambda t: math.floor(max(0.0, (t - start) * slope)) if t < end else 0.0


def never(_t: float) -> float:
    """Return 0."""
    return 0.0


def _missing(t: float) -> float:
    """How many connections have not come back yet after the death of a worker."""
    return round(LOST * max(0.0, 1 - (t - KILLED) / 120)) if t >= KILLED else 0


def _worker_gauges(host: str, worker: str) -> Iterator[tuple[Metric, Labels, Value]]:
    hangs, died = ((host, worker) == which for which in (HUNG, DEAD))
    at = {"worker": worker}

    def beat(t: float) -> float:
        return END - SPAN + t - (t - BLOCKED if hangs and t > BLOCKED else 0.1)

    def start(t: float) -> float:
        return END - SPAN + (KILLED + 2 if died and t >= KILLED + 2 else -90_000)

    def active(t: float) -> float:
        return round(110 * wave(t, int(worker))) - (_missing(t) if died else 0)

    yield m.WORKER_HEARTBEAT, at, beat
    yield m.WORKER_START, at, start
    yield m.WORKER_ACTIVE, at, active
    yield m.WORKER_SOCKETS, {**at, "state": "established"}, lambda t: active(t) + 6
    closing = ramp(LEAK, 0.01) if worker == "1" else never
    yield m.WORKER_SOCKETS, {**at, "state": "close_wait"}, closing
    yield m.WORKER_ACCEPT_QUEUE, at, ramp(BLOCKED, 0.03) if hangs else never
    for reason in m.WORKER_STUCK_REASONS:
        since = BLOCKED + 5 if hangs and reason == "loop_blocked" else SPAN + 1
        if died and reason == "dead":
            yield m.WORKER_STUCK, {**at, "reason": reason}, lambda t: KILLED <= t < KILLED + 15
            continue
        yield m.WORKER_STUCK, {**at, "reason": reason}, lambda t, since=since: t > since


def active_on(host: str, route: str, state: str) -> Value:
    """Return the connections of a route in a state."""
    leak = ramp(LEAK, 0.01 if host == HOSTS[0] else 0.004)
    late = leak if (state, route) == ("closing", "/graphql") else never
    if route == "other":
        return lambda t: float(state == "open")
    size = {"open": 49.0, "connecting": 0.4, "closing": 0.3}[state] * ROUTES[route]
    gone = _missing if (host, route, state) == (HOSTS[1], "/graphql", "open") else never
    return lambda t: round(size * wave(t)) + late(t) - gone(t)


def _connection_gauges(host: str) -> Iterator[tuple[Metric, Labels, Value]]:
    first = host == HOSTS[0]
    leak = ramp(LEAK, 0.01 if first else 0.004)
    for route in ROUTES:
        for state in m.STATE_LABELS:
            at = {"http_route": route, "subprotocol": "", "state": state}
            yield m.ACTIVE_CONNECTIONS, at, active_on(host, route, state)
        for reason in m.STUCK_REASONS:
            stuck = leak if route == "/graphql" and reason == "closing" else never
            if route == "/chat/{room}" and reason == "send_blocked":
                stuck = ramp(1500, 0.02, 1800)
            yield m.STUCK_CONNECTIONS, {"http_route": route, "reason": reason}, stuck


def host_gauges(host: str) -> Iterator[tuple[Metric, Labels, Value]]:
    """Yield every gauge of a host: metric, labels, and its value over time."""
    first = host == HOSTS[0]
    for worker in map(str, range(WORKERS)):
        yield from _worker_gauges(host, worker)
    yield from _connection_gauges(host)
    for state in m.STATE_LABELS:
        since = {"open": -50_000.0, "closing": float(LEAK), "connecting": 0.0}[state]
        yield (
            m.OLDEST_STATE,
            {"state": state},
            (lambda t, since=since: END - SPAN + since if since and t > since else 0.0),
        )
    fixed = {m.STORAGE_DEGRADED: 0.0, m.SWITCHED_OFF: 0.0, m.SKIPPED_SEGMENTS: 0.0}
    fixed |= {m.COLLECTOR_SUCCESS: 1.0}
    for metric, number in fixed.items():
        yield metric, {}, lambda t, number=number: number
    yield m.BUILD_INFO, {"version": "0.1.0"}, lambda t: 1.0
    yield m.EXPORTER_TIME, {}, lambda t: END - SPAN + t
    yield m.COLLECT_DURATION, {}, lambda t: 0.004 * wave(t, 2 * first)
    yield m.WORKERS_REPORTING, {}, lambda t: WORKERS - (first and t > BLOCKED + 5)
    yield m.SUBSCRIPTION_ORPHANS, {}, ramp(LEAK + 600, 0.002) if first else never
    for operation, weight in OPERATIONS.items():
        at = {"graphql_operation_name": operation, "graphql_operation_type": "subscription"}
        yield m.GRAPHQL_ACTIVE, at, lambda t, w=weight: round(48 * w * wave(t, w))
