"""An hour of a service in which things go wrong, made up and the same each time.

Two hosts with four workers each. At 20 minutes a subscription's clean-up begins to hang, and
connections stay in closing; at 40 minutes the loop of worker 2 of the first host is blocked for
good, is killed at 52 minutes and replaced.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from grafana.mixin import planned
from ws_lifecycle_metrics import catalog as m
from ws_lifecycle_metrics.catalog import METRICS, Kind, Metric

END = 1_767_268_800  # noon of a day, UTC
SPAN, STEP = 3600, 15
JOB, HOSTS, WORKERS = "chat", ("web-1:10464", "web-2:10464"), 4
ROUTES = {"/graphql": 6.0, "/chat/{room}": 3.0, "other": 0.02}
OPERATIONS = {"OrderStatus": 3.0, "Prices": 2.0, "Typing": 1.0}
LEAK, BLOCKED, KILLED = 1200, 2400, 3120

Labels = dict[str, str]
Value = Callable[[float], float]


def _wave(t: float, phase: float = 0.0) -> float:
    """Traffic between 0.7 and 1.3 with two rhythms, so that lines are not rulers."""
    return 1 + 0.2 * math.sin(t / 500 + phase) + 0.1 * math.sin(t / 61 + 3 * phase)


def _total(rate: float, phase: float = 0.0) -> Value:
    """Return the integral of a rate that follows the wave."""

    def value(t: float) -> float:
        t += 7200
        slow = -100 * math.cos(t / 500 + phase)
        return math.floor(max(0.0, rate * (t + slow - 6.1 * math.cos(t / 61 + 3 * phase) + 200)))

    return value


def _ramp(start: float, slope: float, end: float = 1e9) -> Value:
    """Return a count that rises from `start`, and falls to 0 at `end`."""
    return lambda t: math.floor(max(0.0, (t - start) * slope)) if t < end else 0.0


def _histogram(metric: Metric, labels: Labels, rate: float, centre: Value) -> Iterator[str]:
    """Yield the lines of a histogram whose values lie around `centre`, in decades."""
    count = _total(rate, len(str(labels)))
    sums = [0.0] * (len(metric.buckets) + 1)
    last = count(-STEP)
    for t in range(0, SPAN + 1, STEP):
        fresh, last = count(t) - last, count(t)
        for index, bound in enumerate((*metric.buckets, math.inf)):
            share = 1 / (1 + math.exp(-3.2 * math.log10(bound / centre(t)))) if bound < 1e9 else 1
            sums[index] += fresh * share
            le = "+Inf" if bound == math.inf else f"{bound:g}"
            yield _line(metric.prometheus + "_bucket", {**labels, "le": le}, sums[index], t)


def _line(name: str, labels: Labels, value: float, t: float) -> str:
    pairs = ",".join(f'{key}="{value}"' for key, value in labels.items())
    return f"{name}{{{pairs}}} {value:.6g} {END - SPAN + t:.0f}\n" if value < 1e7 else (
        f"{name}{{{pairs}}} {value:.3f} {END - SPAN + t:.0f}\n"
    )


def _blocked(host: str, worker: str) -> bool:
    return (host, worker) == (HOSTS[0], "2")


def _worker_gauges(host: str, worker: str) -> Iterator[tuple[Metric, Labels, Value]]:
    hangs = _blocked(host, worker)
    at = {"worker": worker}

    def beat(t: float) -> float:
        silent = t - BLOCKED if hangs and BLOCKED < t < KILLED else 0.1
        return END - SPAN + t - silent

    def start(t: float) -> float:
        return END - SPAN + (KILLED + 2 if hangs and t >= KILLED + 2 else -90_000)

    def active(t: float) -> float:
        return 0.0 if hangs and t >= KILLED and t < KILLED + 60 else round(110 * _wave(t, int(worker)))

    yield m.WORKER_HEARTBEAT, at, beat
    yield m.WORKER_START, at, start
    yield m.WORKER_ACTIVE, at, active
    yield m.WORKER_SOCKETS, {**at, "state": "established"}, lambda t: active(t) + 6
    closing = _ramp(LEAK, 0.004) if worker == "1" else _ramp(9e9, 0)
    yield m.WORKER_SOCKETS, {**at, "state": "close_wait"}, closing
    queue = _ramp(BLOCKED, 0.03, KILLED) if hangs else _ramp(9e9, 0)
    yield m.WORKER_ACCEPT_QUEUE, at, queue
    for reason in m.WORKER_STUCK_REASONS:
        stuck = hangs and reason == "loop_blocked"
        yield m.WORKER_STUCK, {**at, "reason": reason}, (
            lambda t, stuck=stuck: float(stuck and BLOCKED + 5 < t < KILLED)
        )


def _host_gauges(host: str) -> Iterator[tuple[Metric, Labels, Value]]:
    first = host == HOSTS[0]
    for worker in map(str, range(WORKERS)):
        yield from _worker_gauges(host, worker)
    leak = _ramp(LEAK, 0.01 if first else 0.004)
    for route, weight in ROUTES.items():
        for state in m.STATE_LABELS:
            size = {"open": 49.0, "connecting": 0.4, "closing": 0.3}[state] * weight
            late = leak if state == "closing" and route == "/graphql" else _ramp(9e9, 0)
            yield m.ACTIVE_CONNECTIONS, {"http_route": route, "subprotocol": "", "state": state}, (
                lambda t, size=size, late=late: round(size * _wave(t)) + late(t)
            )
        for reason in m.STUCK_REASONS:
            stuck = leak if route == "/graphql" and reason == "closing" else _ramp(9e9, 0)
            if route == "/chat/{room}" and reason == "send_blocked":
                stuck = _ramp(1500, 0.02, 1800)
            yield m.STUCK_CONNECTIONS, {"http_route": route, "reason": reason}, stuck
    for state in m.STATE_LABELS:
        since = {"open": -50_000.0, "closing": float(LEAK), "connecting": 0.0}[state]
        yield m.OLDEST_STATE, {"state": state}, (
            lambda t, since=since: END - SPAN + since if since and t > since else 0.0
        )
    fixed = {m.STORAGE_DEGRADED: 0.0, m.SWITCHED_OFF: 0.0, m.SKIPPED_SEGMENTS: 0.0}
    fixed |= {m.COLLECTOR_SUCCESS: 1.0}
    for metric, number in fixed.items():
        yield metric, {}, lambda t, number=number: number
    yield m.BUILD_INFO, {"version": "0.1.0"}, lambda t: 1.0
    yield m.EXPORTER_TIME, {}, lambda t: END - SPAN + t
    yield m.COLLECT_DURATION, {}, lambda t: 0.004 * _wave(t, 2 * first)
    yield m.WORKERS_REPORTING, {}, lambda t: WORKERS - (first and BLOCKED + 5 < t < KILLED + 2)
    yield planned.SUBSCRIPTION_ORPHANS, {}, _ramp(LEAK + 600, 0.002) if first else _ramp(9e9, 0)
    for operation, weight in OPERATIONS.items():
        at = {"graphql_operation_name": operation, "graphql_operation_type": "subscription"}
        yield planned.GRAPHQL_ACTIVE, at, lambda t, w=weight: round(48 * w * _wave(t, w))


SHARES = {
    "result": {"accepted": 1.0, "rejected": 0.06, "denied": 0.02, "error": 0.004, "aborted": 0.01},
    "initiator": {"client": 0.8, "server": 0.04, "app": 0.16},
    "code": {"1000": 0.4, "1001": 0.45, "1006": 0.05, "1011": 0.004, "4401": 0.03, "4403": 0.01},
    "opcode": {"text": 30.0, "binary": 1.0},
    "severity": {"miss": 0.004, "megamiss": 0.0005, "stuck": 0.0},
    "reason": {"completed": 0.3, "client_complete": 0.5, "disconnected": 0.18, "error": 0.01},
    "rule": {
        "app.send-after-disconnect": 0.02,
        "app.return-without-close": 0.006,
        "server.duplicate-connect": 0.003,
    },
    "graphql_operation_type": {"query": 2.0, "mutation": 0.7, "subscription": 0.9},
}
VOLUMES = {m.RECEIVED_BYTES: 9000.0, m.SENT_BYTES: 52000.0}
RARE = {m.APP_ERRORS: 0.003, m.SHIELDED_SENDS: 0.01, m.LABEL_OVERFLOW: 0.0, m.INTERNAL_ERRORS: 0.0}
RARE |= {planned.SUBSCRIPTION_ERRORS: 0.004, planned.SUBSCRIPTION_EVENTS: 5.0}


def _counter(metric: Metric, labels: Labels, host: str) -> Value:
    """Return a counter's value: the weight of its route or operation, times its labels' shares."""
    if metric is m.LOST_CONNECTIONS:
        lost = host == HOSTS[0] and labels["http_route"] == "/graphql"
        return lambda t: 96.0 * (lost and t >= KILLED)
    if metric is m.STUCK_DETECTIONS:
        found = labels["reason"] == "closing" and labels["http_route"] == "/graphql"
        return _ramp(LEAK, 0.008 if found else 0)
    rate = VOLUMES.get(metric, RARE.get(metric, 1.0)) * ROUTES.get(labels.get("http_route", ""), 1)
    rate *= OPERATIONS.get(labels.get("graphql_operation_name", ""), 1)
    for name, value in labels.items():
        rate *= SHARES.get(name, {}).get(value, 0.0) if name in SHARES else 1
    if rate and metric is m.PROTOCOL_VIOLATIONS:
        return lambda t: _total(rate)(t) + _ramp(LEAK, 0.05 if "server" in labels["rule"] else 0)(t)
    return _total(rate, len(str(labels)) / 7) if rate else lambda t: 0.0


def _label_sets(metric: Metric) -> Iterator[Labels]:
    owner = metric.labels[: len(metric.labels) - len(metric.series[0])]
    values = {"http_route": list(ROUTES), "worker": [str(i) for i in range(WORKERS)]}
    values["graphql_operation_name"] = list(OPERATIONS)
    series: tuple[tuple[str, ...], ...] = metric.series
    if metric is planned.SUBSCRIPTION_ENDS:
        owner, series = metric.labels[:1], tuple((reason,) for reason in SHARES["reason"])
    elif metric.name.startswith("graphql.server.request"):
        kinds = SHARES["graphql_operation_type"]
        owner, series = metric.labels[:1], tuple((kind,) for kind in kinds)
    for first in values[owner[0]] if owner else [""]:
        for rest in series:
            pairs = zip(metric.labels, (first, *rest) if owner else rest, strict=True)
            yield dict(pairs)


CENTRES = {m.LOOP_DELAY: 0.0012, m.HANDSHAKE_DURATION: 0.03, m.SEND_DURATION: 0.0008}
CENTRES |= {m.CONNECTION_DURATION: 240.0, planned.GRAPHQL_DURATION: 0.05}
CENTRES |= {planned.SUBSCRIPTION_FIRST_EVENT: 0.06}
_BUCKETS = {
    planned.GRAPHQL_DURATION: (0.005, 0.025, 0.1, 0.5, 1, 5, 10, 60, 600, 3600, 86400),
    planned.SUBSCRIPTION_FIRST_EVENT: (0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
}


def _counted(metric: Metric, host: str) -> Iterator[str]:
    base = {"job": JOB, "instance": host}
    for labels in _label_sets(metric):
        if metric.kind is Kind.COUNTER:
            value = _counter(metric, labels, host)
            for t in range(0, SPAN + 1, STEP):
                yield _line(metric.prometheus, {**base, **labels}, value(t), t)
            continue
        slow = metric is m.LOOP_DELAY and labels["worker"] == "2" and host == HOSTS[0]
        usual = CENTRES[metric]
        sized = Metric(
            name=metric.name, kind=metric.kind, unit="s", help="", labels=metric.labels,
            buckets=metric.buckets or _BUCKETS[metric],
        )
        yield from _histogram(
            sized, {**base, **labels}, 4.0 if metric is m.LOOP_DELAY else 0.7,
            lambda t, u=usual, s=slow: u * _wave(t) * (60 if s and 2280 < t < KILLED else 1),
        )


def lines() -> Iterator[str]:
    """Yield the whole hour as OpenMetrics text, one series after another."""
    extra = [metric for metric in vars(planned).values() if isinstance(metric, Metric)]
    everything = {metric.name: metric for metric in (*METRICS.values(), *extra)}
    for metric in everything.values():
        family = metric.prometheus.removesuffix("_total")
        yield f"# TYPE {family} {metric.kind}\n"
        for host in HOSTS:
            if metric.kind is not Kind.GAUGE:
                yield from _counted(metric, host)
                continue
            for found, labels, value in _host_gauges(host):
                if found.name == metric.name:
                    for t in range(0, SPAN + 1, STEP):
                        pairs = {"job": JOB, "instance": host, **labels}
                        yield _line(metric.prometheus, pairs, value(t), t)
    yield "# TYPE ALERTS gauge\n"
    for name, severity in (("ConnectionsNotReleased", "warning"), ("SubscriptionsOrphaned", "warning")):
        for t in range(LEAK + 300, SPAN + 1, STEP):
            pairs = {"alertname": f"WebSocket{name}", "alertstate": "firing", "severity": severity}
            yield _line("ALERTS", {**pairs, "job": JOB, "instance": HOSTS[0]}, 1.0, t)
    yield "# EOF\n"
