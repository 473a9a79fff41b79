"""Alerts on the measuring itself."""

from __future__ import annotations

from ..alert import Alert, Condition, Runbook
from ..config import CONFIG
from ..promql import firing, increase, metrics, select, sum_by

_METRICS = "curl -s http://127.0.0.1:10464/metrics | grep ^ws_lifecycle_metrics"

DOWN = Alert(
    name="ExporterDown",
    summary="The sidecar cannot be scraped: nobody watches these workers.",
    description="{{ $labels.instance }} ({{ $labels.job }}) has not answered for 2 minutes.",
    conditions=(
        Condition(
            # No job is named: a target that has ever shown our clock is ours.
            expr=f"up == 0\nand on ({CONFIG.instance()})"
            f" (present_over_time({select(metrics.EXPORTER_TIME)}[1d])"
            f" or {firing('ExporterDown', CONFIG.instance())})\n"
            f"or {select(metrics.COLLECTOR_SUCCESS)} == 0",
            wait="2m",
            severity="warning",
        ),
    ),
    runbook=Runbook(
        meaning="A target that answered within the last day does not any more, or answers that it"
        " could not collect. It fires until the target answers or is taken out of the scrape"
        " configuration.",
        impact="All other alerts of this host are blind. The workers themselves are not affected.",
        commands=(
            "systemctl status ws-lifecycle-metrics",
            "curl -sv http://127.0.0.1:10464/readyz",
            "journalctl --since -15min -u ws-lifecycle-metrics",
        ),
        causes=(
            "The sidecar was not started, or was killed.",
            "A network policy or firewall between Prometheus and the host.",
            "Its address is not among `allowed_hosts`: then it answers 4xx.",
        ),
        fix=(
            "Start it again; it needs no state of its own and loses nothing.",
            "Let the supervisor restart it (`Restart=always`).",
        ),
    ),
)

DEGRADED = Alert(
    name="StorageDegraded",
    summary="The workers' numbers are incomplete.",
    description=(
        "{{ $labels.instance }} ({{ $labels.job }}) has no usable directory for its segments, or"
        " no room in it, or a worker stopped observing."
    ),
    conditions=(
        Condition(
            expr=f"max by ({CONFIG.instance()}) ({select(metrics.STORAGE_DEGRADED)}) > 0\n"
            f"or max by ({CONFIG.instance()}) ({select(metrics.SWITCHED_OFF)}) > 0",
            wait="5m",
            severity="warning",
        ),
    ),
    runbook=Runbook(
        meaning="The segments are not shared: the directory is missing, unsafe or full; or the"
        " middleware of a worker switched itself off after many faults of its own.",
        impact="Numbers of some workers are missing or live in their own memory only. Traffic is"
        " not affected.",
        commands=(
            _METRICS,
            "df -h /dev/shm && ls -la /dev/shm",
            "journalctl --since -1h -u YOUR-SERVICE"
            " | grep -A 20 -E 'metrics stay|room for more metrics|a fault in'",
        ),
        causes=(
            "`/dev/shm` is full, or a container has the default of 64 MB.",
            "The directory belongs to another user, or others may write to it.",
            "A fault of this package: `internal_errors` counts them, the log has the first ones.",
        ),
        fix=(
            "Give it room: `emptyDir` with `medium: Memory`, or `--shm-size`.",
            "Set `WS_LIFECYCLE_DIRECTORY` to a directory of mode 0700 of that user.",
            "A fault of ours: report what the log says, and restart the worker.",
        ),
    ),
)

OVERFLOW = Alert(
    name="LabelOverflow",
    summary="Label values are folded into 'other'.",
    description=(
        "{{ $labels.label }} of {{ $labels.instance }} ({{ $labels.job }}) has reached its cap."
    ),
    conditions=(
        Condition(
            expr=sum_by(CONFIG.instance("label"), increase(metrics.LABEL_OVERFLOW, window="30m"))
            + " > 0.5",
            severity="info",
        ),
    ),
    runbook=Runbook(
        meaning="More routes, subprotocols or operation names were seen than may become labels.",
        impact="New ones are counted under `other`; nothing is lost in the sums.",
        commands=(
            _METRICS,
            "curl -s http://127.0.0.1:10464/metrics | grep -o 'http_route=\"[^\"]*' | sort -u",
            "ws-lifecycle-metrics connections",
        ),
        causes=(
            "A route function of your own that returns paths instead of templates.",
            "Clients that invent operation names.",
            "A service with more routes than the cap.",
        ),
        fix=(
            "Return the template (`/rooms/{room}`), never the path.",
            "Name the routes that matter in the options, so that they keep their places, or raise"
            " the cap.",
        ),
    ),
)

ALERTS = (DOWN, DEGRADED, OVERFLOW)
