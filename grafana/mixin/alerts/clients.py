"""Alerts on what clients meet: failing handshakes and storms of reconnects."""

from __future__ import annotations

from ..alert import Alert, Condition, Runbook
from ..config import CONFIG
from ..promql import increase, metrics, number, rate, sum_by
from ..rules import handshake_errors

_MINIMUM = CONFIG.handshake_minimum
_LOG = "journalctl --since -30min -u YOUR-SERVICE"


def _burn(factor: float, windows: tuple[str, str], wait: str, severity: str) -> Condition:
    """Fire where both windows spend the budget `factor` times too fast, on enough handshakes."""
    limit = f"{factor * (1 - CONFIG.handshake_slo):.4g}"
    short, long = (handshake_errors(window) for window in windows)
    attempts = sum_by(CONFIG.job(), increase(metrics.HANDSHAKES, window=windows[1]))
    return Condition(
        expr=f"{long} > {limit}\nand {short} > {limit}\nand {attempts} >= {_MINIMUM}",
        wait=wait,
        severity=severity,
        labels={"window": windows[1]},
    )


BURN = Alert(
    name="HandshakeErrorBudgetBurn",
    summary="Handshakes fail faster than the objective allows.",
    description=("{{ $value | humanizePercentage }} of the handshakes of {{ $labels.job }} fail."),
    conditions=(
        _burn(14.4, ("5m", "1h"), "2m", "critical"),
        _burn(6, ("30m", "6h"), "15m", "warning"),
    ),
    runbook=Runbook(
        meaning=f"Of all handshakes {CONFIG.handshake_slo:.0%} shall be answered. `error`: the"
        " application raised; `aborted`: the client left before the answer. At the fast rate the"
        " budget of 30 days is gone in two days, at the slow one in five. Neither is told from"
        f" fewer than {_MINIMUM} handshakes in its long window (`window`), of which one alone may"
        " have failed: where clients come less often, all may fail and nothing fires.",
        impact="New clients do not get in; those already connected do not notice.",
        commands=(
            "curl -s http://127.0.0.1:10464/metrics | grep handshakes_total | grep -v ' 0.0$'",
            _LOG,
            "ws-lifecycle-metrics connections",
        ),
        causes=(
            "What the handshake needs is down: login, sessions, database.",
            "A deployment that raises on connect.",
            "Handshakes that take longer than clients wait: then they are `aborted`.",
        ),
        fix=(
            "The Overview dashboard shows which route and which result; the log has the exception.",
            "Roll back if it began with a deployment (the annotation marks worker starts).",
            "Rejecting with a close code is an answer; an exception is not.",
        ),
    ),
)

_NOW = sum_by(CONFIG.job(), rate(metrics.HANDSHAKES, window="5m"))
_USUAL = sum_by(CONFIG.job(), rate(metrics.HANDSHAKES, window="1h offset 10m"))

STORM = Alert(
    name="ReconnectStorm",
    summary="Clients connect many times as often as usual.",
    description="{{ $value | humanize }} handshakes a second on {{ $labels.job }}.",
    conditions=(
        Condition(
            expr=f"{_NOW} > {number(CONFIG.storm_factor)} * {_USUAL}\n"
            f"and {_NOW} > {number(CONFIG.storm_minimum)}",
            wait="5m",
            severity="warning",
        ),
    ),
    runbook=Runbook(
        meaning=f"Handshakes come {number(CONFIG.storm_factor)} times as often as in the hour"
        " before, for five minutes.",
        impact="Each reconnect costs a login and a subscription; a storm can keep a service down"
        " after the fault that began it is gone.",
        commands=(
            "curl -s http://127.0.0.1:10464/metrics | grep closes_total | grep -v ' 0.0$'",
            "ss -s",
            _LOG,
        ),
        causes=(
            "A worker, proxy or load balancer was restarted and dropped all connections.",
            "Connections that end at once: a close code on the Overview dashboard says why.",
            "Clients that retry without waiting.",
        ),
        fix=(
            "If most closes carry one code, mend its cause: 1006 network or worker, 1011 the"
            " application, 4401 and 4403 logins.",
            "Limit handshakes at the proxy until it calms; give clients a back-off with jitter.",
        ),
    ),
)

ALERTS = (BURN, STORM)
