"""Alerts on single connections that do not end, or do not move."""

from __future__ import annotations

from ..alert import Alert, Condition, Runbook
from ..config import CONFIG
from ..promql import metrics, number, select, sum_by

# An orphan outlives its connection, so that it is none of those that are active.
_OPEN = 'reason!="orphan_subscription"'
_STUCK = sum_by(CONFIG.job("http_route"), select(metrics.STUCK_CONNECTIONS, _OPEN))
_ACTIVE = sum_by(CONFIG.job("http_route"), select(metrics.ACTIVE_CONNECTIONS))
_JSON = "curl -s http://127.0.0.1:10464/connections"

STUCK = Alert(
    name="ConnectionsStuck",
    summary="A large part of the connections is stuck.",
    description=(
        "{{ $value | humanizePercentage }} of the connections on {{ $labels.http_route }}"
        " ({{ $labels.job }}) are stuck."
    ),
    conditions=(
        Condition(
            expr=f"{_STUCK} / ({_ACTIVE} > 0) > {number(CONFIG.stuck_ratio)}\n"
            f"and {_STUCK} >= {CONFIG.stuck_minimum}",
            wait="5m",
            severity="critical",
        ),
    ),
    runbook=Runbook(
        meaning=f"More than {CONFIG.stuck_ratio:.0%} of a route's connections, and at least"
        f" {CONFIG.stuck_minimum}, have been in one place for longer than allowed. The label"
        " `reason` of the panels says in which: `handshake`, `send_blocked`, `closing`,"
        " `receive_withheld`, `draining` or `ghost`. An `orphan_subscription` has no connection any"
        f" more; {CONFIG.prefix}SubscriptionsOrphaned tells of it.",
        impact="Clients see a connection that does nothing; new ones may share their fate.",
        commands=("ws-lifecycle-metrics connections", _JSON, "ss -tn state close-wait | head"),
        causes=(
            "`handshake`: a dependency of the handshake hangs: login, database, cache.",
            "`send_blocked`: clients do not read, or the buffers of a proxy between are full.",
            "`draining`: the server shuts down and the application does not listen.",
            "`ghost`: the network is gone without a word and the server sends no pings.",
        ),
        fix=(
            "See which reason leads on the Overview dashboard, and which line of code the log"
            " names for it.",
            "Give the wait at that line a deadline; let the server send pings.",
            "If all of them are on one worker, treat that worker as stuck and restart it.",
        ),
    ),
)

NOT_RELEASED = Alert(
    name="ConnectionsNotReleased",
    summary="Connections have ended for one side, and the other does not let go.",
    description=(
        "{{ $value }} connections on {{ $labels.http_route }} of {{ $labels.instance }}"
        " ({{ $labels.job }}) were closed and are still there: {{ $labels.reason }}."
    ),
    conditions=(
        Condition(
            expr=sum_by(
                CONFIG.instance("http_route", "reason"),
                select(metrics.STUCK_CONNECTIONS, 'reason=~"closing|receive_withheld"'),
            )
            + " > 0",
            wait="1m",
            severity="warning",
        ),
    ),
    runbook=Runbook(
        meaning="`closing`: the application saw the end of the connection, or closed it, and still"
        " runs. `receive_withheld`: the application closed, waits in `receive()`, and the server"
        " never delivers the disconnect. Each stay counts after 30 s.",
        impact="Each one holds its task, memory and often a subscription or a database session."
        " The number grows until the worker fails or somebody restarts it.",
        commands=("ws-lifecycle-metrics connections", _JSON, "ws-lifecycle-metrics rules"),
        causes=(
            "`closing`: a task that waits for something that the disconnect does not end: a queue,"
            " a lock, another task, a generator's `finally`.",
            "`receive_withheld`: the server's fault; several versions of Granian do it.",
        ),
        fix=(
            "The log has, for each of them, the line of your code that it waits in. Bound that"
            " wait, or cancel it when the disconnect arrives.",
            "Until then, the option `cancel_stuck_closing` cancels such tasks.",
            "`receive_withheld`: update the server, or return after the close instead of waiting"
            " in `receive()`.",
        ),
    ),
)

ALERTS = (STUCK, NOT_RELEASED)
