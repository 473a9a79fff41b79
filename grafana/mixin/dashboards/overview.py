"""Overview: is anything wrong, and what do connections do?"""

from __future__ import annotations

from ..base import BLUE, GREEN, NEUTRAL, ORANGE, PURPLE, RED, WARN_ABOVE_ZERO, YELLOW, Query
from ..board import Board, Row
from ..panels import heat, lines, stat
from ..promql import INSTANCE, ROUTE, age, grown, metrics, quantile, rate, select, sum_by
from ..rules import expected_workers
from ..tables import table
from .trust import books, itself

_SPAN = "$__range"
STUCK_COLOURS = dict(
    zip(metrics.STUCK_REASONS, (YELLOW, BLUE, RED, ORANGE, PURPLE, "text", "pink"), strict=True)
)
_NO_STATE = "oldest state timestamps of 0 mean that no connection is in that state"


def _oldest(state: str) -> str:
    """Return the age of the oldest connection in a state; none: no series."""
    since = select(metrics.OLDEST_STATE, f'{INSTANCE}, state="{state}"')
    return f"max({age(f'({since} > 0)', INSTANCE)}) or 0 * max({since})"


def _wrong() -> Row:
    stuck = sum_by("", select(metrics.STUCK_CONNECTIONS, ROUTE))
    workers = sum_by("", select(metrics.WORKER_STUCK, INSTANCE))
    violations = sum_by("", grown(metrics.PROTOCOL_VIOLATIONS, ROUTE, _SPAN, target=INSTANCE))
    return Row(
        "Is anything wrong?",
        (
            stat(
                "Workers stuck",
                "Workers that do not serve: blocked, stopped, starved or dead.",
                Query(workers),
                alert="WorkerStuck",
                size=(4, 5),
            ),
            stat(
                "Connections stuck",
                "Connections in one place for longer than its threshold.",
                Query(stuck),
                alert="ConnectionsStuck",
                size=(4, 5),
            ),
            stat(
                "Longest in closing",
                "Age of the oldest connection that has ended for one side"
                f" and is still there; 0: there is none ({_NO_STATE}).",
                Query(_oldest("closing")),
                unit="s",
                alert="ConnectionsNotReleased",
                steps=((None, GREEN), (10, ORANGE), (30, RED)),
                size=(4, 5),
            ),
            stat(
                "Workers beating, and usual",
                "Workers whose event loop beats; and how many this"
                " service had for most of the last hour.",
                Query(sum_by("", select(metrics.WORKERS_REPORTING, INSTANCE)), "beating"),
                Query(sum_by("", expected_workers(INSTANCE)), "usual"),
                alert="WorkersMissing",
                steps=((None, RED), (1, BLUE)),
                size=(4, 5),
            ),
            stat(
                "Violations",
                "Breaches of the ASGI message rules in the time shown, by either side.",
                Query(violations),
                alert="ServerProtocolViolation",
                steps=WARN_ABOVE_ZERO,
                unit="none",
                decimals=0,
                size=(4, 5),
            ),
            stat(
                "Open connections",
                "WebSocket scopes that have not ended, in any state.",
                Query(sum_by("", select(metrics.ACTIVE_CONNECTIONS, ROUTE))),
                steps=NEUTRAL,
                sparkline=True,
                size=(4, 5),
            ),
        ),
    )


def _where() -> Row:
    by_reason = sum_by("reason", select(metrics.STUCK_CONNECTIONS, ROUTE))
    firing = 'ALERTS{alertstate="firing", alertname=~"WebSocket.+", job=~"$job"}'
    return Row(
        "Which connections are stuck, and why?",
        (
            lines(
                "Stuck connections by reason",
                "How many are stuck now. closing: the application"
                " does not let go; receive_withheld: the server does not; send_blocked: the"
                " client does not read; the runbook explains all of them.",
                Query(by_reason, "{{reason}}"),
                stacked=True,
                colours=STUCK_COLOURS,
                alert="ConnectionsStuck",
                size=(8, 8),
            ),
            table(
                "Stuck by route",
                "Where connections are stuck now, largest first.",
                Query(
                    "topk(10, "
                    + sum_by("http_route, reason", select(metrics.STUCK_CONNECTIONS, ROUTE))
                    + " > 0)"
                ),
                columns={"http_route": "Route", "reason": "Reason", "Value": "Stuck"},
                steps=((None, ORANGE), (5, RED)),
                size=(8, 8),
                alert="ConnectionsNotReleased",
            ),
            table(
                "Alerts that fire",
                "What Prometheus evaluates to firing now; needs the rules of grafana/alerts.",
                Query(f"count by (alertname, severity) ({firing})"),
                columns={"alertname": "Alert", "severity": "Severity", "Value": "Number"},
                narrow=("Severity",),
                steps=((None, RED),),
                size=(8, 8),
            ),
        ),
    )


def _lifecycle() -> Row:
    states = sum_by("state", select(metrics.ACTIVE_CONNECTIONS, ROUTE))
    handshakes = sum_by("result", rate(metrics.HANDSHAKES, ROUTE))
    codes = sum_by("code", rate(metrics.CLOSES, ROUTE)) + " > 0"
    return Row(
        "What are connections doing?",
        (
            lines(
                "Connections by state",
                "connecting: not answered; closing: ended for one side.",
                Query(states, "{{state}}"),
                stacked=True,
                size=(8, 8),
                colours={"open": GREEN, "connecting": YELLOW, "closing": RED},
            ),
            lines(
                "Handshakes by result",
                "How the application answered; error: it raised, aborted: the client left first.",
                Query(handshakes, "{{result}}"),
                unit="reqps",
                size=(8, 8),
                alert="HandshakeErrorBudgetBurn",
                colours={
                    "accepted": GREEN,
                    "rejected": BLUE,
                    "denied": PURPLE,
                    "error": RED,
                    "aborted": ORANGE,
                },
            ),
            lines(
                "Closes by code",
                "1000 and 1001 are healthy; 1006: no close was seen;"
                " 1011: the application failed; 4xxx are the application's own.",
                Query(codes, "{{code}}"),
                unit="ops",
                size=(8, 8),
            ),
            lines(
                "Closes by initiator",
                "The side that closed first.",
                Query(sum_by("initiator", rate(metrics.CLOSES, ROUTE)), "{{initiator}}"),
                unit="ops",
                stacked=True,
                size=(8, 8),
            ),
            lines(
                "Handshakes by route",
                "Sum of all results; a sudden rise is a storm of reconnects.",
                Query(sum_by("http_route", rate(metrics.HANDSHAKES, ROUTE)), "{{http_route}}"),
                unit="reqps",
                size=(8, 8),
                alert="ReconnectStorm",
            ),
            lines(
                "Application errors",
                "Exceptions that left the application, by route.",
                Query(sum_by("http_route", rate(metrics.APP_ERRORS, ROUTE)), "{{http_route}}"),
                unit="ops",
                size=(8, 8),
                alert="AppProtocolViolation",
            ),
        ),
    )


def _speed() -> Row:
    def quantiles(metric: metrics.Metric) -> tuple[Query, Query]:
        return (
            Query(quantile(0.99, metric, ROUTE), "p99", exemplar=True),
            Query(quantile(0.5, metric, ROUTE), "p50"),
        )

    lifetimes = sum_by("le", rate(metrics.CONNECTION_DURATION, ROUTE, suffix="_bucket"))
    return Row(
        "Is it fast, and how long do connections live?",
        (
            lines(
                "Handshake duration",
                "From the start of the scope to the application's answer.",
                *quantiles(metrics.HANDSHAKE_DURATION),
                unit="s",
                size=(8, 8),
            ),
            lines(
                "Send duration",
                "How long send() takes to return: the only back-pressure that ASGI shows.",
                *quantiles(metrics.SEND_DURATION),
                unit="s",
                size=(8, 8),
            ),
            heat(
                "Lifetime of connections",
                "When they ended, and how long they had lived.",
                Query(lifetimes, "{{le}}", exemplar=True),
                size=(8, 8),
            ),
        ),
    )


def _traffic() -> Row:
    received, sent = (
        sum_by("opcode", rate(m, ROUTE)) for m in (metrics.RECEIVED_MESSAGES, metrics.SENT_MESSAGES)
    )
    return Row(
        "How much traffic is there?",
        (
            lines(
                "Messages",
                "Messages delivered to the application, and taken from it.",
                Query(received, "received {{opcode}}"),
                Query(sent, "sent {{opcode}}"),
                unit="cps",
            ),
            lines(
                "Payload",
                "Bytes of payload; text counts as UTF-8.",
                Query(sum_by("", rate(metrics.RECEIVED_BYTES, ROUTE)), "received"),
                Query(sum_by("", rate(metrics.SENT_BYTES, ROUTE)), "sent"),
                unit="Bps",
            ),
        ),
    )


BOARD = Board(
    uid="websocket-overview",
    title="WebSocket / Overview",
    description="Is anything wrong with the WebSockets of this service, and what do they do?",
    rows=(_wrong(), _where(), _lifecycle(), _speed(), _traffic(), books(), itself()),
)
