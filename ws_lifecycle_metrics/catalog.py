"""Every metric, once: name, kind, unit, labels, buckets and meaning.

The segments' layout, the Prometheus collector, the documentation and the tests read this
table; nothing else spells a metric's name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import product

from .protocol import RULES, Party, Severity


class Kind(StrEnum):
    """What a metric is to Prometheus and OpenTelemetry."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Block(StrEnum):
    """Where a segment keeps a metric's words: one block a worker, route or operation."""

    WORKER = "worker"
    ROUTE = "route"
    OPERATION = "operation"


@dataclass(frozen=True, kw_only=True, slots=True)
class Metric:
    """One metric.

    `name` is OpenTelemetry's, with dots; `prometheus` the same in Prometheus' spelling.
    `labels` are all label names in order. `series` are the values, known in advance, of the
    labels that remain when the block's own (`http_route`, `worker`) is taken away.
    `zeros` are those of them that stand at 0 from the start, all unless given; the others
    appear with their first event. `operation_type` is the one type of GraphQL operation that
    has the metric, if it is but one.
    `block` says where its words are stored; None is computed when read.
    """

    name: str
    kind: Kind
    help: str
    unit: str = ""
    labels: tuple[str, ...] = ()
    series: tuple[tuple[str, ...], ...] = ((),)
    zeros: tuple[tuple[str, ...], ...] = None  # type: ignore[assignment]  # then `series`
    operation_type: str = ""
    buckets: tuple[float, ...] = ()
    block: Block | None = None
    prometheus: str = field(init=False)

    def __post_init__(self) -> None:
        name = self.name.replace(".", "_")
        suffix = {"s": "_seconds", "By": "_bytes"}.get(self.unit, "")
        if not name.endswith(suffix):
            name += suffix
        if self.kind is Kind.COUNTER:
            name += "_total"
        object.__setattr__(self, "prometheus", name)
        if self.zeros is None:
            object.__setattr__(self, "zeros", self.series)


HANDSHAKE_RESULTS = ("accepted", "rejected", "denied", "error", "aborted")
INITIATORS = ("client", "server", "app")
OPCODES = ("text", "binary")
STATE_LABELS = ("connecting", "open", "closing")
STUCK_REASONS = (
    *("handshake", "send_blocked", "closing", "receive_withheld", "draining"),
    *("ghost", "orphan_subscription"),
)
"""Why a connection is stuck; each has its threshold, `Config.stuck_<reason>`."""
WORKER_STUCK_REASONS = ("loop_blocked", "stopped", "accept_starved", "dead")
STALL_SEVERITIES = ("miss", "megamiss", "stuck")
SOCKET_STATES = ("established", "close_wait")
OPERATION_TYPES = ("query", "mutation", "subscription")
END_REASONS = (
    "completed",
    "rejected",
    "client_complete",
    "disconnected",
    "cancelled",
    "consumer_gone",
    "error",
)

OTHER_CODE = "other"
_KNOWN_CODES = (
    *(1000, 1001, 1002, 1003, 1005, 1006, 1007, 1008, 1009, 1011, 1012, 1013),
    *(4400, 4401, 4403, 4406, 4408, 4409, 4429, 4500),
)
CODES = (*map(str, _KNOWN_CODES), "3xxx", "4xxx", OTHER_CODE)
_CODE_LABELS = {code: str(code) for code in _KNOWN_CODES}


_ATTRIBUTES = {
    "http_route": "http.route",
    "graphql_operation_name": "graphql.operation.name",
    "graphql_operation_type": "graphql.operation.type",
}


def attribute(label: str) -> str:
    """Return what OpenTelemetry calls a label: its own name, or that of the conventions."""
    return _ATTRIBUTES.get(label, label)


def code_label(code: int | None) -> str:
    """Return the `code` label of a close code; None is a close that carried none we saw."""
    if code is None:
        return OTHER_CODE
    label = _CODE_LABELS.get(code)
    if label is not None:
        return label
    if 3000 <= code <= 3999:
        return "3xxx"
    return "4xxx" if 4000 <= code <= 4999 else OTHER_CODE


CODE_NAMES: Mapping[int, str] = {
    4400: "bad message",
    4401: "subscribe before acknowledgement",
    4403: "forbidden",
    4406: "subprotocol not accepted",
    4408: "connection_init timed out",
    4409: "operation id in use",
    4429: "connection_init sent twice",
    4500: "internal server error",
}
"""What the close codes of the GraphQL protocols mean."""


def _singles(values: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    return tuple((value,) for value in values)


# A series that never counts costs Prometheus as much as one that does, on each host and for
# each route. What waits for its first event is what hardly any route ever sees.
_USUAL_CLOSES = (
    *(("client", "1000"), ("client", "1001"), ("client", "1005"), ("client", "1006")),
    *(("server", "1012"), ("server", OTHER_CODE), ("app", "1000"), ("app", "1011")),
)
_SERVER_ERRORS = tuple(
    (str(rule.party), rule.id)
    for rule in RULES.values()
    if rule.party is Party.SERVER and rule.severity is Severity.ERROR
)


HANDSHAKES = Metric(
    name="websocket.server.handshakes",
    kind=Kind.COUNTER,
    unit="{handshake}",
    labels=("http_route", "result"),
    series=_singles(HANDSHAKE_RESULTS),
    block=Block.ROUTE,
    help="Handshakes by how the application answered; their sum is the attempts.",
)
HANDSHAKE_DURATION = Metric(
    name="websocket.server.handshake.duration",
    kind=Kind.HISTOGRAM,
    unit="s",
    labels=("http_route",),
    buckets=(0.005, 0.025, 0.1, 0.5, 1, 5, 10),
    block=Block.ROUTE,
    help="Time from the start of the scope to the application's answer.",
)
ACTIVE_CONNECTIONS = Metric(
    name="websocket.server.active_connections",
    kind=Kind.GAUGE,
    unit="{connection}",
    labels=("http_route", "subprotocol", "state"),
    series=tuple(("", state) for state in STATE_LABELS),
    help="WebSocket scopes that have not ended, by state.",
)
CONNECTION_DURATION = Metric(
    name="websocket.server.connection.duration",
    kind=Kind.HISTOGRAM,
    unit="s",
    labels=("http_route",),
    buckets=(0.1, 1, 10, 60, 300, 3600, 14400, 86400),
    block=Block.ROUTE,
    help="Time from the accept to the end of the application, recorded at the end.",
)
CLOSES = Metric(
    name="websocket.server.closes",
    kind=Kind.COUNTER,
    unit="{connection}",
    labels=("http_route", "initiator", "code"),
    series=tuple(product(INITIATORS, CODES)),
    zeros=_USUAL_CLOSES,
    block=Block.ROUTE,
    help="Accepted connections that ended, by the side that closed first and its close code.",
)
RECEIVED_MESSAGES = Metric(
    name="websocket.server.received_messages",
    kind=Kind.COUNTER,
    unit="{message}",
    labels=("http_route", "opcode"),
    series=_singles(OPCODES),
    help="Messages delivered to the application.",
)
SENT_MESSAGES = Metric(
    name="websocket.server.sent_messages",
    kind=Kind.COUNTER,
    unit="{message}",
    labels=("http_route", "opcode"),
    series=_singles(OPCODES),
    help="Messages that the server took from the application.",
)
RECEIVED_BYTES = Metric(
    name="websocket.server.received_bytes",
    kind=Kind.COUNTER,
    unit="By",
    labels=("http_route",),
    help="Payload delivered to the application; text counts as UTF-8.",
)
SENT_BYTES = Metric(
    name="websocket.server.sent_bytes",
    kind=Kind.COUNTER,
    unit="By",
    labels=("http_route",),
    help="Payload that the server took from the application; text counts as UTF-8.",
)
SEND_DURATION = Metric(
    name="websocket.server.send.duration",
    kind=Kind.HISTOGRAM,
    unit="s",
    labels=("http_route",),
    buckets=(0.001, 0.005, 0.025, 0.1, 0.5, 1, 5, 10),
    block=Block.ROUTE,
    help="Time a send() took to return: the only back-pressure that ASGI shows. While a"
    " connection's sends are fast, its first one every 0.25 s is timed.",
)
APP_ERRORS = Metric(
    name="websocket.server.app_errors",
    kind=Kind.COUNTER,
    unit="{error}",
    labels=("http_route",),
    block=Block.ROUTE,
    help="Exceptions that left the application.",
)
PROTOCOL_VIOLATIONS = Metric(
    name="websocket.server.protocol_violations",
    kind=Kind.COUNTER,
    unit="{violation}",
    labels=("http_route", "party", "rule"),
    series=tuple((str(rule.party), rule.id) for rule in RULES.values()),
    zeros=_SERVER_ERRORS,
    block=Block.ROUTE,
    help="Breaches of the ASGI message rules, by the side at fault.",
)
SHIELDED_SENDS = Metric(
    name="websocket.server.shielded_sends",
    kind=Kind.COUNTER,
    unit="{message}",
    labels=("http_route",),
    block=Block.ROUTE,
    help="Sends after the close that the policy 'shield' kept from the server.",
)
STUCK_CONNECTIONS = Metric(
    name="websocket.server.stuck_connections",
    kind=Kind.GAUGE,
    unit="{connection}",
    labels=("http_route", "reason"),
    series=_singles(STUCK_REASONS),
    help="Connections that have been in one place for longer than its threshold.",
)
STUCK_DETECTIONS = Metric(
    name="websocket.server.stuck_detections",
    kind=Kind.COUNTER,
    unit="{detection}",
    labels=("http_route", "reason"),
    series=_singles(STUCK_REASONS),
    zeros=_singles(tuple(reason for reason in STUCK_REASONS if reason != "ghost")),
    block=Block.ROUTE,
    help="Times that a worker found a connection stuck; once a stay. Ghosts are a gauge only.",
)
LOST_CONNECTIONS = Metric(
    name="websocket.server.lost_connections",
    kind=Kind.COUNTER,
    unit="{connection}",
    labels=("http_route",),
    help="Accepted connections that had not ended when their worker died.",
)
OLDEST_STATE = Metric(
    name="websocket.server.oldest_state_timestamp",
    kind=Kind.GAUGE,
    unit="s",
    labels=("state",),
    series=_singles(STATE_LABELS),
    help="Unix time at which the connection that is longest in this state entered it; 0: none.",
)

GRAPHQL_REQUESTS = Metric(
    name="graphql.server.requests",
    kind=Kind.COUNTER,
    unit="{operation}",
    labels=("graphql_operation_name", "graphql_operation_type"),
    series=_singles(OPERATION_TYPES),
    block=Block.OPERATION,
    help="Operations that began, over WebSocket and HTTP.",
)
GRAPHQL_ACTIVE = Metric(
    name="graphql.server.request.active",
    kind=Kind.GAUGE,
    unit="{operation}",
    labels=("graphql_operation_name", "graphql_operation_type"),
    series=_singles(OPERATION_TYPES),
    help="Operations that began and have not ended.",
)
GRAPHQL_DURATION = Metric(
    name="graphql.server.request.duration",
    kind=Kind.HISTOGRAM,
    unit="s",
    labels=("graphql_operation_name", "graphql_operation_type"),
    series=_singles(OPERATION_TYPES),
    buckets=(0.005, 0.025, 0.1, 0.5, 1, 5, 60, 3600, 86400),
    block=Block.OPERATION,
    help="Time from an operation's start to its end; of a subscription its whole life.",
)
SUBSCRIPTION_EVENTS = Metric(
    name="graphql.server.subscription.event_count",
    kind=Kind.COUNTER,
    unit="{result}",
    labels=("graphql_operation_name",),
    operation_type="subscription",
    block=Block.OPERATION,
    help="Results of subscriptions that were handed to the transport.",
)
SUBSCRIPTION_ERRORS = Metric(
    name="graphql.server.subscription.event_errors",
    kind=Kind.COUNTER,
    unit="{result}",
    labels=("graphql_operation_name",),
    operation_type="subscription",
    block=Block.OPERATION,
    help="Results of subscriptions that carried errors.",
)
SUBSCRIPTION_FIRST_EVENT = Metric(
    name="graphql.server.subscription.first_event",
    kind=Kind.HISTOGRAM,
    unit="s",
    labels=("graphql_operation_name",),
    buckets=(0.005, 0.025, 0.1, 0.5, 1, 5, 10),
    operation_type="subscription",
    block=Block.OPERATION,
    help="Time from a subscription's start to its first result.",
)
SUBSCRIPTION_ENDS = Metric(
    name="graphql.server.subscription.ends",
    kind=Kind.COUNTER,
    unit="{subscription}",
    labels=("graphql_operation_name", "reason"),
    series=_singles(END_REASONS),
    operation_type="subscription",
    block=Block.OPERATION,
    help="Subscriptions that ended, by how; one whose type nobody learned counts if rejected.",
)
SUBSCRIPTION_ORPHANS = Metric(
    name="graphql.server.subscription.orphans",
    kind=Kind.GAUGE,
    unit="{subscription}",
    help="Subscriptions that go on although their WebSocket connection has ended.",
)

WORKER_START = Metric(
    name="asgi.worker.start_timestamp",
    kind=Kind.GAUGE,
    unit="s",
    labels=("worker",),
    help="Unix time at which the worker served its first scope.",
)
WORKER_ACTIVE = Metric(
    name="asgi.worker.active_connections",
    kind=Kind.GAUGE,
    unit="{connection}",
    labels=("worker",),
    help="WebSocket scopes that have not ended, by worker.",
)
WORKER_HEARTBEAT = Metric(
    name="asgi.worker.heartbeat_timestamp",
    kind=Kind.GAUGE,
    unit="s",
    labels=("worker",),
    help="Unix time at which the worker's event loop last beat; every 250 ms while it runs.",
)
LOOP_DELAY = Metric(
    name="asgi.worker.event_loop_delay",
    kind=Kind.HISTOGRAM,
    unit="s",
    labels=("worker",),
    buckets=(0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1, 5, 30),
    block=Block.WORKER,
    help="By how much the event loop ran a timer too late, sampled every 250 ms.",
)
LOOP_STALLS = Metric(
    name="asgi.worker.event_loop_stalls",
    kind=Kind.COUNTER,
    unit="{stall}",
    labels=("worker", "severity"),
    series=_singles(STALL_SEVERITIES),
    block=Block.WORKER,
    help="Times that something held up the event loop, by the worst level that was reached.",
)
LOOP_STALL_SECONDS = Metric(
    name="asgi.worker.event_loop_stall",
    kind=Kind.COUNTER,
    unit="s",
    labels=("worker", "severity"),
    series=_singles(STALL_SEVERITIES),
    block=Block.WORKER,
    help="Time for which the event loop was held up, by the worst level that was reached.",
)
WORKER_STUCK = Metric(
    name="asgi.worker.stuck",
    kind=Kind.GAUGE,
    labels=("worker", "reason"),
    series=_singles(WORKER_STUCK_REASONS),
    help="1 while a worker does not serve, for this reason.",
)
WORKER_SOCKETS = Metric(
    name="asgi.worker.sockets",
    kind=Kind.GAUGE,
    unit="{socket}",
    labels=("worker", "state"),
    series=_singles(SOCKET_STATES),
    help="TCP connections that the kernel holds for the worker's process; the sidecar on Linux.",
)
WORKER_ACCEPT_QUEUE = Metric(
    name="asgi.worker.accept_queue",
    kind=Kind.GAUGE,
    unit="{connection}",
    labels=("worker",),
    help="Connections that wait to be accepted by the worker's process; the sidecar on Linux.",
)
WORKERS_REPORTING = Metric(
    name="asgi.workers_reporting",
    kind=Kind.GAUGE,
    unit="{worker}",
    help="Workers of this host that are alive and whose event loop beats.",
)
EXPORTER_TIME = Metric(
    name="asgi.exporter_time",
    kind=Kind.GAUGE,
    unit="s",
    help="Unix time of this collection, for ages without clock skew.",
)

LABEL_OVERFLOW = Metric(
    name="ws_lifecycle_metrics.label_overflow",
    kind=Kind.COUNTER,
    unit="{observation}",
    labels=("label",),
    series=_singles(("http_route", "subprotocol", "graphql_operation_name")),
    block=Block.WORKER,
    help="Label values that were folded into 'other' because their cap was reached.",
)
INTERNAL_ERRORS = Metric(
    name="ws_lifecycle_metrics.internal_errors",
    kind=Kind.COUNTER,
    unit="{error}",
    block=Block.WORKER,
    help="Faults of this package that were kept from the application.",
)
SPANS_DROPPED = Metric(
    name="ws_lifecycle_metrics.spans_dropped",
    kind=Kind.COUNTER,
    unit="{span}",
    block=Block.WORKER,
    help="Spans that were not made: the tracer raised, or a connection had too many findings.",
)
SWITCHED_OFF = Metric(
    name="ws_lifecycle_metrics.switched_off",
    kind=Kind.GAUGE,
    unit="{worker}",
    help="Workers whose middleware stopped observing after too many faults of its own.",
)
STORAGE_DEGRADED = Metric(
    name="ws_lifecycle_metrics.storage_degraded",
    kind=Kind.GAUGE,
    help="1 while the numbers are not shared: no usable directory, or no room in it.",
)
SKIPPED_SEGMENTS = Metric(
    name="ws_lifecycle_metrics.skipped_segments",
    kind=Kind.GAUGE,
    unit="{file}",
    help="Files in the directory of segments that could not be trusted or read.",
)
OTLP_PUSHES = Metric(
    name="ws_lifecycle_metrics.otlp_pushes",
    kind=Kind.COUNTER,
    unit="{push}",
    labels=("result",),
    series=_singles(("ok", "failed")),
    help="Pushes over OTLP by the process that answers, by whether the collector took them.",
)
COLLECT_DURATION = Metric(
    name="ws_lifecycle_metrics.collect.duration",
    kind=Kind.GAUGE,
    unit="s",
    help="Time that this collection took.",
)
COLLECTOR_SUCCESS = Metric(
    name="ws_lifecycle_metrics.collector_success",
    kind=Kind.GAUGE,
    help="1 if this collection was complete, 0 if it failed.",
)
BUILD_INFO = Metric(
    name="ws_lifecycle_metrics.build_info",
    kind=Kind.GAUGE,
    labels=("version",),
    help="Always 1; the label is the version of the package that answers.",
)

METRICS: Mapping[str, Metric] = {
    metric.name: metric for metric in tuple(globals().values()) if isinstance(metric, Metric)
}
"""All metrics by OpenTelemetry name, in the order of definition."""
