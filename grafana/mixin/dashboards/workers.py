"""Workers: which one hangs, how late do loops run, do clients wait outside?"""

from __future__ import annotations

from ..base import GREEN, ORANGE, PURPLE, RED, YELLOW, Query
from ..board import Board, Row
from ..panels import heat, lines, stat, states
from ..promql import INSTANCE, age, increase, metrics, quantile, rate, select, sum_by
from ..rules import heartbeat_age

_WORKER = "instance, worker"
_NAME = "{{instance}} worker {{worker}}"
_REASONS = {
    "0": ("serves", GREEN),
    "1": ("loop blocked", RED),
    "2": ("stopped", PURPLE),
    "3": ("clients wait", ORANGE),
    "4": ("dead", "text"),
}


def _reason() -> str:
    """Return one number a worker: 0 serves, else the place of the reason in the catalogue."""
    parts = " or ".join(
        f"{number} * (max by ({_WORKER}) ({select(metrics.WORKER_STUCK, matchers)}) > 0)"
        for number, reason in enumerate(metrics.WORKER_STUCK_REASONS, 1)
        if (matchers := f'{INSTANCE}, reason="{reason}"')
    )
    serves = f"max by ({_WORKER}) ({select(metrics.WORKER_STUCK, INSTANCE)})"
    return f"{parts} or {serves}"


def _stuck() -> Row:
    return Row(
        "Which worker is stuck?",
        (
            states(
                "State of each worker",
                "Green serves. loop blocked: the event loop does not"
                " beat; stopped: by a signal; clients wait: the loop beats and accepts nobody.",
                Query(_reason(), _NAME),
                mappings=_REASONS,
                size=(14, 8),
                alert="WorkerStuck",
            ),
            lines(
                "Age of the last heartbeat",
                "A loop beats every 250 ms; above 5 s it counts as"
                " blocked. Both clocks are the sidecar's.",
                Query(f"max by ({_WORKER}) ({heartbeat_age(INSTANCE)})", _NAME),
                unit="s",
                limit=5,
                size=(10, 8),
                alert="WorkerStuck",
            ),
        ),
    )


def _late() -> Row:
    buckets = sum_by("le", rate(metrics.LOOP_DELAY, INSTANCE, suffix="_bucket"))
    stalls = sum_by("severity", increase(metrics.LOOP_STALLS, INSTANCE))
    held = sum_by(_WORKER, rate(metrics.LOOP_STALL_SECONDS, INSTANCE))
    return Row(
        "How late do the event loops run?",
        (
            heat(
                "Delay of the event loops",
                "By how much a timer ran too late, sampled every 250 ms in each worker.",
                Query(buckets, "{{le}}", exemplar=True),
                alert="EventLoopSlow",
            ),
            lines(
                "Delay by worker, p99",
                "One worker above the others has blocking code or too"
                " many clients; all together have too little processor.",
                Query(quantile(0.99, metrics.LOOP_DELAY, INSTANCE, _WORKER), _NAME),
                unit="s",
                limit=0.5,
                alert="EventLoopSlow",
            ),
            lines(
                "Stalls",
                "How often something held a loop: miss 0.2 s, megamiss 1 s, stuck 5 s."
                " The worker's log has the stack of each megamiss.",
                Query(stalls, "{{severity}}"),
                stacked=True,
                alert="EventLoopSlow",
                colours={"miss": YELLOW, "megamiss": ORANGE, "stuck": RED},
            ),
            lines(
                "Share of time held up",
                "Part of each second in which the loop could do nothing else, over all levels.",
                Query(held, _NAME),
                unit="percentunit",
            ),
        ),
    )


def _outside() -> Row:
    sockets = sum_by("state", select(metrics.WORKER_SOCKETS, INSTANCE))
    scopes = sum_by("", select(metrics.WORKER_ACTIVE, INSTANCE))
    queue = f"max by ({_WORKER}) ({select(metrics.WORKER_ACCEPT_QUEUE, INSTANCE)})"
    return Row(
        "Do clients wait outside, and does the kernel agree?",
        (
            lines(
                "Accept queue",
                "Clients that the kernel has accepted and the worker has not."
                " Should be 0 all the time.",
                Query(queue, _NAME),
                size=(8, 8),
                alert="WorkerStuck",
            ),
            lines(
                "Sockets against scopes",
                "More scopes than sockets: ghosts, whose client is"
                " gone. close_wait that stays: the client closed and the server did not.",
                Query(sockets, "sockets {{state}}"),
                Query(scopes, "WebSocket scopes"),
                size=(8, 8),
                alert="ConnectionsStuck",
            ),
            lines(
                "Connections by worker",
                "A worker that gets all or none of the new ones is worth a look.",
                Query(sum_by(_WORKER, select(metrics.WORKER_ACTIVE, INSTANCE)), _NAME),
                stacked=True,
                size=(8, 8),
            ),
        ),
    )


def _restarted() -> Row:
    since_start = age(select(metrics.WORKER_START, INSTANCE), INSTANCE)
    lost = sum_by("instance", increase(metrics.LOST_CONNECTIONS, INSTANCE))
    return Row(
        "Was a worker restarted or lost?",
        (
            stat(
                "Youngest worker",
                "Time since the last worker began to serve.",
                Query(f"min({since_start})"),
                unit="s",
                steps=((None, ORANGE), (300, GREEN)),
                size=(6, 7),
            ),
            lines(
                "Time since start",
                "A saw-tooth is a worker that restarts again and again.",
                Query(f"max by ({_WORKER}) ({since_start})", _NAME),
                unit="s",
                size=(9, 7),
            ),
            lines(
                "Connections lost with their worker",
                "Open when their worker died.",
                Query(lost, "{{instance}}"),
                size=(9, 7),
                alert="WorkerDied",
            ),
        ),
    )


BOARD = Board(
    uid="websocket-workers",
    title="WebSocket / Workers",
    description="Which worker hangs, how late do event loops run, do clients wait outside?",
    rows=(_stuck(), _late(), _outside(), _restarted()),
)
