"""The made-up hour as OpenMetrics text, which promtool turns into blocks."""

from __future__ import annotations

import math
from collections.abc import Iterator

from ws_lifecycle_metrics import catalog as m
from ws_lifecycle_metrics.catalog import METRICS, Kind, Metric

from .story import (
    BLOCKED,
    END,
    HOSTS,
    JOB,
    KILLED,
    LEAK,
    LOST,
    OPERATIONS,
    ROUTES,
    SPAN,
    STEP,
    WORKERS,
    Labels,
    Value,
    active_on,
    host_gauges,
    ramp,
    total_of,
    wave,
)


def _histogram(metric: Metric, labels: Labels, rate: float, centre: Value) -> Iterator[str]:
    """Yield the lines of a histogram whose values lie around `centre`, in decades."""
    count = total_of(rate, len(str(labels)))
    sums = [0.0] * (len(metric.buckets) + 1)
    last = count(-STEP)
    for t in range(0, SPAN + 1, STEP):
        fresh, last = count(t) - last, count(t)
        for index, bound in enumerate((*metric.buckets, math.inf)):
            share = 1 / (1 + math.exp(-7 * math.log10(bound / centre(t)))) if bound < 1e9 else 1
            sums[index] += fresh * share
            le = "+Inf" if bound == math.inf else f"{bound:g}"
            yield _line(metric.prometheus + "_bucket", {**labels, "le": le}, sums[index], t)


def _line(name: str, labels: Labels, value: float, t: float) -> str:
    pairs = ",".join(f'{key}="{value}"' for key, value in labels.items())
    return (
        f"{name}{{{pairs}}} {value:.6g} {END - SPAN + t:.0f}\n"
        if value < 1e7
        else (f"{name}{{{pairs}}} {value:.3f} {END - SPAN + t:.0f}\n")
    )


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
RARE |= {m.SUBSCRIPTION_ERRORS: 0.004, m.SUBSCRIPTION_EVENTS: 5.0}


def _lost(host: str, route: str) -> Value:
    here = (host, route) == (HOSTS[1], "/graphql")
    return lambda t: float(LOST * (here and t >= KILLED))


def _closes(host: str, labels: Labels) -> Value:
    """Return what balances the books: all that were accepted are active, lost or closed."""
    route = labels["http_route"]
    accepted = _counter(m.HANDSHAKES, {"http_route": route, "result": "accepted"}, host)
    active = [active_on(host, route, state) for state in ("open", "closing")]
    lost = _lost(host, route)

    def closed(t: float) -> float:
        return accepted(t) - sum(value(t) for value in active) - lost(t)

    def share(initiator: str, code: str) -> float:
        return SHARES["initiator"][initiator] * SHARES["code"].get(code, 0.0)

    if (labels["initiator"], labels["code"]) != ("client", "1001"):
        part = share(labels["initiator"], labels["code"])
        return lambda t: math.floor(part * closed(t))
    others = [
        part
        for initiator in m.INITIATORS
        for code in m.CODES
        if (initiator, code) != ("client", "1001") and (part := share(initiator, code))
    ]
    return lambda t: closed(t) - sum(math.floor(part * closed(t)) for part in others)


def _counter(metric: Metric, labels: Labels, host: str) -> Value:
    """Return a counter's value: the weight of its route or operation, times its labels' shares."""
    if metric is m.LOST_CONNECTIONS:
        return _lost(host, labels["http_route"])
    if metric is m.CLOSES:
        return _closes(host, labels)
    if metric is m.STUCK_DETECTIONS:
        found = labels["reason"] == "closing" and labels["http_route"] == "/graphql"
        return ramp(LEAK, 0.008 if found else 0)
    rate = VOLUMES.get(metric, RARE.get(metric, 1.0)) * ROUTES.get(labels.get("http_route", ""), 1)
    rate *= OPERATIONS.get(labels.get("graphql_operation_name", ""), 1)
    for name, value in labels.items():
        rate *= SHARES.get(name, {}).get(value, 0.0) if name in SHARES else 1
    if rate and metric is m.PROTOCOL_VIOLATIONS:
        return lambda t: (
            total_of(rate)(t) + ramp(LEAK, 0.05 if "server" in labels["rule"] else 0)(t)
        )
    return total_of(rate, len(str(labels)) / 7) if rate else lambda t: 0.0


def _label_sets(metric: Metric) -> Iterator[Labels]:
    owner = metric.labels[: len(metric.labels) - len(metric.series[0])]
    values = {"http_route": list(ROUTES), "worker": [str(i) for i in range(WORKERS)]}
    values["graphql_operation_name"] = list(OPERATIONS)
    for first in values[owner[0]] if owner else [""]:
        for rest in metric.series:
            pairs = zip(metric.labels, (first, *rest) if owner else rest, strict=True)
            yield dict(pairs)


CENTRES = {m.LOOP_DELAY: 0.0012, m.HANDSHAKE_DURATION: 0.03, m.SEND_DURATION: 0.0008}
CENTRES |= {m.CONNECTION_DURATION: 240.0, m.GRAPHQL_DURATION: 0.05}
CENTRES |= {m.SUBSCRIPTION_FIRST_EVENT: 0.06}


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
        yield from _histogram(
            metric,
            {**base, **labels},
            4.0 if metric is m.LOOP_DELAY else 0.7,
            lambda t, u=usual, s=slow: u * wave(t) * (60 if s and t > BLOCKED - 300 else 1),
        )


FIRING = (
    ("WorkerStuck", "critical", BLOCKED + 45),
    ("ConnectionsNotReleased", "warning", LEAK + 150),
    ("SubscriptionsOrphaned", "warning", LEAK + 1500),
    ("ServerProtocolViolation", "warning", 15),
)


def _of_host(metric: Metric, host: str) -> Iterator[str]:
    if metric.kind is not Kind.GAUGE:
        yield from _counted(metric, host)
        return
    for found, labels, value in host_gauges(host):
        if found.name == metric.name:
            for t in range(0, SPAN + 1, STEP):
                pairs = {"job": JOB, "instance": host, **labels}
                yield _line(metric.prometheus, pairs, value(t), t)


def _alerts() -> Iterator[str]:
    for name, severity, since in FIRING:
        for t in range(since, SPAN + 1, STEP):
            pairs = {"alertname": f"WebSocket{name}", "alertstate": "firing", "severity": severity}
            yield _line("ALERTS", {**pairs, "job": JOB, "instance": HOSTS[0]}, 1.0, t)


def lines() -> Iterator[str]:
    """Yield the whole hour, one series after another."""
    for metric in METRICS.values():
        yield f"# TYPE {metric.prometheus.removesuffix('_total')} {metric.kind}\n"
        for host in HOSTS:
            yield from _of_host(metric, host)
    yield "# TYPE ALERTS gauge\n"
    yield from _alerts()
    yield "# EOF\n"
