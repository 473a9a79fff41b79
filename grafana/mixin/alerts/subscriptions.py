"""Alerts on GraphQL subscriptions."""

from __future__ import annotations

from ..alert import Alert, Condition, Runbook
from ..config import CONFIG
from ..promql import firing, metrics, rate, select, sum_by

_OPERATION = CONFIG.job("graphql_operation_name")
_ORPHANS = sum_by(CONFIG.instance(), select(metrics.SUBSCRIPTION_ORPHANS))
_STUCK = sum_by(
    CONFIG.instance(), select(metrics.STUCK_CONNECTIONS, 'reason="orphan_subscription"')
)
_LIVE = sum_by(_OPERATION, select(metrics.GRAPHQL_ACTIVE, 'graphql_operation_type="subscription"'))


def _events(past: str = "") -> str:
    return sum_by(_OPERATION, rate(metrics.SUBSCRIPTION_EVENTS, window=f"15m{past}"))


ORPHANED = Alert(
    name="SubscriptionsOrphaned",
    summary="Subscriptions go on although their connection has ended.",
    description=(
        "{{ $value }} subscriptions of {{ $labels.instance }} ({{ $labels.job }}) run and have"
        " nobody to send to."
    ),
    conditions=(Condition(expr=f"{_ORPHANS} > 0\nor {_STUCK} > 0", wait="5m", severity="warning"),),
    runbook=Runbook(
        meaning="The generator of a subscription is alive, and the WebSocket that it served is"
        " gone.",
        impact="It goes on reading from its source: memory, database sessions and broker"
        " subscriptions leak, one for each client that left.",
        commands=(
            "ws-lifecycle-metrics connections",
            "curl -s http://127.0.0.1:10464/metrics | grep -E 'orphan|subscription_ends'",
            "journalctl --since -30min -u YOUR-SERVICE | grep orphan_subscription",
        ),
        causes=(
            "A generator that swallows `CancelledError` or `GeneratorExit`.",
            "A `finally` that waits for something that never comes.",
            "A task that the resolver started and nobody cancels.",
        ),
        fix=(
            "The log names the line in which the generator waits. Let cancellation through, and"
            " bound what `finally` does.",
            "Restart the worker to free what has leaked, as WebSocketWorkerStuck has it.",
        ),
    ),
)

SILENT = Alert(
    name="SubscriptionSilent",
    summary="Subscribers are connected and get no events any more.",
    description=(
        "{{ $labels.graphql_operation_name }} ({{ $labels.job }}) has subscribers, had events an"
        " hour earlier and has had none for at least 15 minutes."
    ),
    conditions=(
        Condition(
            expr=f"{_LIVE} > 0\nand {_events()} == 0\nand"
            f" ({_events(' offset 1h')} > 0 or {firing('SubscriptionSilent', _OPERATION)})",
            wait="15m",
            severity="warning",
        ),
    ),
    runbook=Runbook(
        meaning="A subscription has live clients, delivered events an hour before this began, and"
        " none since. It fires until there are events again, or no clients.",
        impact="Clients show old data and do not know it: the connection looks healthy.",
        commands=(
            "ws-lifecycle-metrics connections",
            "curl -s http://127.0.0.1:10464/metrics | grep subscription_event_count_total",
            "journalctl --since -1h -u YOUR-SERVICE | grep -iE 'redis|kafka|amqp|pubsub|listen'",
        ),
        causes=(
            "The source behind it has gone: a broker connection that nobody reopened.",
            "The publisher has stopped, or publishes under another name.",
            "A quiet night: an operation that has pauses by nature.",
        ),
        fix=(
            "Check the publisher first, then the worker's connection to the broker; reconnecting"
            " clients help only if the resolver subscribes anew.",
            "Let an operation with natural pauses send a heartbeat, or silence it by name.",
        ),
    ),
)

ALERTS = (ORPHANED, SILENT)
