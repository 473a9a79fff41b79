"""Alerts on workers: stuck, missing, dead, slow."""

from __future__ import annotations

from ..alert import Alert, Condition, Runbook
from ..config import CONFIG
from ..promql import increase, metrics, number, select, sum_by
from ..rules import EXPECTED_WORKERS, LOOP_DELAY_P99

_CONNECTIONS = "ws-lifecycle-metrics connections"
_LOST = sum_by(CONFIG.instance("http_route"), increase(metrics.LOST_CONNECTIONS, window="10m"))
_DEAD = select(metrics.WORKER_STUCK, 'reason="dead"')
_DEATHS = f"max by ({CONFIG.instance()}) (max_over_time({_DEAD}[10m]))"

STUCK = Alert(
    name="WorkerStuck",
    summary="A worker does not serve: its connections hang.",
    description=(
        "Worker {{ $labels.worker }} of {{ $labels.instance }} ({{ $labels.job }}) has not served"
        " for at least 30 s: {{ $labels.reason }}."
    ),
    conditions=(
        Condition(
            expr=f"max by ({CONFIG.instance('worker', 'reason')})"
            f" ({select(metrics.WORKER_STUCK)}) > 0",
            wait="30s",
            severity="critical",
        ),
    ),
    runbook=Runbook(
        meaning="The sidecar sees that an event loop does not beat (`loop_blocked`), that the"
        " process is stopped by a signal (`stopped`), that it died and nobody replaced it"
        " (`dead`), or that clients wait to be accepted although the loop beats"
        " (`accept_starved`).",
        impact="All WebSockets of that worker hang. Servers that share a port go on giving it new"
        " clients, so a part of the handshakes hangs, too.",
        commands=(
            "curl -s http://127.0.0.1:10464/healthz",
            _CONNECTIONS,
            "kill -TERM PID    # the id that healthz names, if the server outlives it: see the fix;"
            " KILL after 10 s",
        ),
        causes=(
            "Blocking code on the event loop: a synchronous query, `time.sleep()`, a lock, DNS.",
            "A computation or a C call that holds the interpreter.",
            "A server that hangs itself: Granian 2.2.6 to 2.7.0 can deadlock, and before 2.7.9 it"
            " freezes when an application returns with a `receive()` in flight.",
            "A machine without processor time, memory or file descriptors.",
        ),
        fix=(
            "The worker's log has the stack of the loop, taken when it stuck: the last line in"
            " your own code is the place. Move the call to a thread, or use an async client.",
            "End that one worker: uvicorn, gunicorn and Granian with `--respawn-failed-workers`"
            " start another, and the others go on. Granian without that option and Hypercorn end"
            " with any worker: restart the service when it hurts least.",
            "Let the supervisor act on `/healthz`.",
            "Where the stack ends in the server, update it; the Protocol dashboard tells whether"
            " it breaks the protocol, too.",
        ),
    ),
)

MISSING = Alert(
    name="WorkersMissing",
    summary="Fewer workers serve than usual.",
    description=(
        "{{ $value }} of the workers that {{ $labels.instance }} ({{ $labels.job }}) is used to"
        " do not serve."
    ),
    conditions=(
        Condition(
            expr=f"{EXPECTED_WORKERS} - {select(metrics.WORKERS_REPORTING)} >= 1",
            wait="2m",
            severity="warning",
        ),
    ),
    runbook=Runbook(
        meaning="Over most of the last hour this host had more workers whose loop beats. What is"
        " usual is learnt: it follows a deliberate change after half an hour.",
        impact="The remaining workers carry the load; the next one to fail may be the last.",
        commands=(
            "curl -s http://127.0.0.1:10464/healthz",
            "ps -eo pid,ppid,stat,etime,args"
            " | grep -iE '[g]ranian|[u]vicorn|[g]unicorn|[h]ypercorn|[d]aphne'",
            "journalctl --since -15min -u YOUR-SERVICE",
        ),
        causes=(
            "A worker died and its supervisor did not start another.",
            "A worker cannot start: an import fails, a port or a database is not to be had.",
            "Somebody scaled down; then the alert ends by itself.",
        ),
        fix=(
            "Read in the server's log why the worker ended, and restart the service if its"
            " supervisor has given up.",
            "After scaling down on purpose: silence it for half an hour.",
        ),
    ),
)

DIED = Alert(
    name="WorkerDied",
    summary="A worker died with open connections.",
    description=(
        "About {{ $value | humanize }} open connections on {{ $labels.http_route }} of"
        " {{ $labels.instance }} ({{ $labels.job }}) were lost in the last 10 minutes."
    ),
    conditions=(
        Condition(
            # A worker that is told to end may lose connections, too: many servers' reload does.
            expr=f"{_LOST} > 0.5\nand on ({CONFIG.instance()}) {_DEATHS} > 0",
            severity="warning",
        ),
    ),
    runbook=Runbook(
        meaning="A worker ended without a word: killed, crashed or out of memory. Its totals are"
        " kept, and its open connections are counted as lost. What a reload or a deployment loses"
        " does not fire: the Overview dashboard shows it.",
        impact="These clients saw their connection break without a close (1006) and reconnect all"
        " at once.",
        commands=(
            "journalctl -k --since -30min | grep -iE 'oom|killed process|segfault'",
            "journalctl --since -30min -u YOUR-SERVICE",
            "curl -s http://127.0.0.1:10464/metrics | grep -E 'lost_connections|start_timestamp'",
        ),
        causes=(
            "The kernel's or the container's memory limit.",
            "SIGKILL by a supervisor whose stop timeout is too short.",
            "A crash in a C extension or in the server.",
        ),
        fix=(
            "Out of memory: raise the limit, or find what each connection holds.",
            "Killed at a deployment: lengthen the stop timeout, and close connections with 1012"
            " when the shutdown begins.",
            "A crash: run with `PYTHONFAULTHANDLER=1` and report what it prints.",
        ),
    ),
)

SLOW = Alert(
    name="EventLoopSlow",
    summary="The event loops answer late.",
    description=(
        "The 99th percentile of the loop's delay on {{ $labels.instance }} ({{ $labels.job }}) is"
        " {{ $value | humanizeDuration }}."
    ),
    conditions=(
        Condition(
            expr=f"{LOOP_DELAY_P99} > {number(CONFIG.loop_delay_p99)}",
            wait="10m",
            severity="warning",
        ),
    ),
    runbook=Runbook(
        meaning="For ten minutes, one timer in a hundred ran more than"
        f" {number(CONFIG.loop_delay_p99)} s late.",
        impact="Each message, ping and handshake waits that long. Clients with tight ping timeouts"
        " reconnect, which makes it worse.",
        commands=(
            _CONNECTIONS,
            "top -H -b -n 1 | head -30",
            "journalctl --since -30min -u YOUR-SERVICE | grep -A 15 'event loop of worker'",
        ),
        causes=(
            "Synchronous calls or heavy serialisation on the loop.",
            "Too few workers or processors for the load; a throttled container.",
            "Garbage collection or swapping.",
        ),
        fix=(
            "The Workers dashboard shows which worker and since when; the log has a stack for each"
            " stall above one second. Move that work off the loop.",
            "If all workers are late alike, add workers or processors.",
        ),
    ),
)

ALERTS = (STUCK, MISSING, DIED, SLOW)
