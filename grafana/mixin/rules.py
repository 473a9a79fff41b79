"""Recording rules: what alerts need over several windows, computed once."""

from __future__ import annotations

from .config import CONFIG
from .promql import age, metrics, rate, select, sum_by

WINDOWS = ("5m", "30m", "1h", "6h")
FAILED = 'result=~"error|aborted"'
"""Handshakes that failed the client; rejected and denied ones are answers."""


def handshake_errors(window: str) -> str:
    """Return the name of the ratio of failed handshakes over a window."""
    return f"job:websocket_server_handshake_errors:ratio_rate{window}"


EXPECTED_WORKERS = "instance:asgi_workers_expected:median1h"
HEARTBEAT_AGE = "instance_worker:asgi_worker_heartbeat_age_seconds:max"
LOOP_DELAY_P99 = "instance:asgi_worker_event_loop_delay_seconds:p99_rate5m"


def heartbeat_age(matchers: str = "") -> str:
    """Return each worker's heartbeat age, on the exporter's clock alone."""
    return age(select(metrics.WORKER_HEARTBEAT, matchers), matchers)


def expected_workers(matchers: str = "") -> str:
    """Return how many workers a target is used to: half of the last hour it had so many."""
    return f"quantile_over_time(0.5, {select(metrics.WORKERS_REPORTING, matchers)}[1h])"


def recording_rules() -> list[dict[str, str]]:
    """Return all recording rules as Prometheus reads them."""
    delay = sum_by(CONFIG.instance("le"), rate(metrics.LOOP_DELAY, window="5m", suffix="_bucket"))
    return [
        *(
            {"record": handshake_errors(window), "expr": _handshake_errors(window)}
            for window in WINDOWS
        ),
        {"record": EXPECTED_WORKERS, "expr": expected_workers()},
        {"record": HEARTBEAT_AGE, "expr": heartbeat_age()},
        {"record": LOOP_DELAY_P99, "expr": f"histogram_quantile(0.99, {delay})"},
    ]


def _handshake_errors(window: str) -> str:
    failed = sum_by(CONFIG.job(), rate(metrics.HANDSHAKES, FAILED, window))
    attempts = sum_by(CONFIG.job(), rate(metrics.HANDSHAKES, "", window))
    return f"{failed} / ({attempts} > 0)"
