"""GraphQL: do subscriptions end as they should, and do events arrive?"""

from __future__ import annotations

from ..base import BLUE, GREEN, NEUTRAL, ORANGE, PURPLE, RED, WARN_ABOVE_ZERO, YELLOW, Query
from ..board import Board, Row
from ..panels import heat, lines, stat
from ..promql import INSTANCE, increase, metrics, quantile, rate, select, sum_by
from ..tables import table

_HERE = INSTANCE + ', graphql_operation_name=~"$operation"'
_SUBSCRIPTIONS = _HERE + ', graphql_operation_type="subscription"'
_NAME = "graphql_operation_name"
_LEGEND = "{{graphql_operation_name}}"


def _wrong() -> Row:
    errors = sum_by("", increase(metrics.SUBSCRIPTION_ERRORS, _HERE, "$__range"))
    bad = increase(metrics.SUBSCRIPTION_ENDS, f'{_HERE}, reason=~"error|rejected"', "$__range")
    return Row(
        "Is a subscription broken?",
        (
            stat(
                "Orphans",
                "Subscriptions that go on although their connection has ended.",
                Query(sum_by("", select(metrics.SUBSCRIPTION_ORPHANS, INSTANCE))),
                alert="SubscriptionsOrphaned",
                size=(5, 5),
            ),
            stat(
                "Results with errors",
                "Delivered with errors, in the time shown.",
                Query(errors),
                steps=WARN_ABOVE_ZERO,
                unit="none",
                decimals=0,
                size=(5, 5),
            ),
            stat(
                "Ended badly",
                "Ended by an error or rejected, in the time shown.",
                Query(sum_by("", bad)),
                steps=WARN_ABOVE_ZERO,
                unit="none",
                decimals=0,
                size=(5, 5),
            ),
            stat(
                "Subscriptions",
                "Live subscriptions.",
                Query(sum_by("", select(metrics.GRAPHQL_ACTIVE, _SUBSCRIPTIONS))),
                steps=NEUTRAL,
                sparkline=True,
                size=(9, 5),
            ),
        ),
    )


def _running() -> Row:
    live = sum_by(_NAME, select(metrics.GRAPHQL_ACTIVE, _SUBSCRIPTIONS))
    kinds = sum_by("graphql_operation_type", rate(metrics.GRAPHQL_REQUESTS, _HERE))
    return Row(
        "What runs now?",
        (
            lines(
                "Live subscriptions by operation",
                "A line that only rises is a leak.",
                Query(live, _LEGEND),
                stacked=True,
            ),
            lines(
                "Operations begun",
                "Over WebSocket and HTTP.",
                Query(kinds, "{{graphql_operation_type}}"),
                unit="reqps",
            ),
        ),
    )


def _events() -> Row:
    events = sum_by(_NAME, rate(metrics.SUBSCRIPTION_EVENTS, _HERE))
    first = sum_by("le", rate(metrics.SUBSCRIPTION_FIRST_EVENT, _HERE, suffix="_bucket"))
    return Row(
        "Do events arrive?",
        (
            lines(
                "Events delivered",
                "Results handed to the transport. Subscribers without events"
                " for 15 minutes are an alert.",
                Query(events, _LEGEND),
                unit="ops",
                alert="SubscriptionSilent",
            ),
            lines(
                "Results with errors",
                "Results that carried errors.",
                Query(sum_by(_NAME, rate(metrics.SUBSCRIPTION_ERRORS, _HERE)), _LEGEND),
                unit="ops",
            ),
            heat(
                "Time to the first event",
                "From a subscription's start to its first result.",
                Query(first, "{{le}}", exemplar=True),
            ),
            lines(
                "Time to the first event by operation, p95",
                "The slowest operations first.",
                Query(
                    quantile(0.95, metrics.SUBSCRIPTION_FIRST_EVENT, _HERE, _NAME),
                    _LEGEND,
                    exemplar=True,
                ),
                unit="s",
            ),
        ),
    )


def _ends() -> Row:
    ends = sum_by("reason", rate(metrics.SUBSCRIPTION_ENDS, _HERE))
    table_expr = sum_by(f"{_NAME}, reason", increase(metrics.SUBSCRIPTION_ENDS, _HERE, "$__range"))
    quick = _HERE + ', graphql_operation_type=~"query|mutation"'
    return Row(
        "How do operations end, and how long do they take?",
        (
            lines(
                "Ends by reason",
                "completed and client_complete are healthy; consumer_gone: the"
                " generator was dropped; disconnected: the connection went first.",
                Query(ends, "{{reason}}"),
                unit="ops",
                stacked=True,
                size=(8, 8),
                colours={
                    "completed": GREEN,
                    "client_complete": BLUE,
                    "disconnected": PURPLE,
                    "cancelled": "text",
                    "consumer_gone": YELLOW,
                    "rejected": ORANGE,
                    "error": RED,
                },
            ),
            table(
                "Ends by operation",
                "In the time shown.",
                Query(f"topk(20, {table_expr} > 0)"),
                columns={_NAME: "Operation", "reason": "Reason", "Value": "Ends"},
                steps=NEUTRAL,
                size=(8, 8),
            ),
            lines(
                "Duration of queries and mutations, p95",
                "Over WebSocket and HTTP. A"
                " subscription's duration is its whole life and stands not here.",
                Query(
                    quantile(0.95, metrics.GRAPHQL_DURATION, quick, _NAME), _LEGEND, exemplar=True
                ),
                unit="s",
                size=(8, 8),
            ),
        ),
    )


BOARD = Board(
    uid="websocket-graphql",
    title="WebSocket / GraphQL",
    description="Do GraphQL subscriptions end as they should, and do their events arrive?",
    rows=(_wrong(), _running(), _events(), _ends()),
    operations=metrics.GRAPHQL_REQUESTS,
)
