"""Log records, at a limited rate: the logger is `ws_lifecycle_metrics`."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress

from ..advisories import Advisory
from ..labels import TraceIds, plural, safe_label, trace_fields
from ..protocol import Rule, Severity

logger = logging.getLogger("ws_lifecycle_metrics")

PERIOD = 60.0
_LEVELS = {
    Severity.ERROR: logging.ERROR,
    Severity.WARNING: logging.WARNING,
    Severity.INFO: logging.DEBUG,
}


class RateLimit:
    """Lets a key pass once a period and counts how often it did not."""

    def __init__(self, period: float = PERIOD, clock: Callable[[], float] = time.monotonic) -> None:
        self._period = period
        self._clock = clock
        self._next: dict[str, float] = {}
        self._held: dict[str, int] = {}

    def take(self, key: str) -> int | None:
        """Return how often `key` was held back since it last passed, or None: hold it back."""
        now = self._clock()
        if now < self._next.get(key, now):
            self._held[key] = self._held.get(key, 0) + 1
            return None
        self._next[key] = now + self._period
        return self._held.pop(key, 0)


_limit = RateLimit()


def log_violation(rule: Rule, route: str, trace: TraceIds | None = None) -> None:
    """Log a violation: error and warning by their severity, info as debug.

    With `trace`, the record also has `trace_id` and `span_id`, in hexadecimal.
    """
    held = _limit.take(rule.id)
    if held is None:
        return
    logger.log(
        _LEVELS[rule.severity],
        "%s broke %s on %s: %s; %s%s",
        "the application" if rule.party == "app" else "the server",
        rule.id,
        safe_label(route),
        rule.meaning,
        rule.hint,
        f" ({held} more since the last such line)" if held else "",
        extra={
            "rule": rule.id,
            "party": str(rule.party),
            "http_route": safe_label(route),
            **trace_fields(trace),
        },
    )


def log_raised(name: str, outcome: str, error: Exception) -> None:
    """Log an exception of what the user gave us to call, and what became of the matter."""
    if _limit.take(name) is not None:
        logger.error("%s raised; %s", name, outcome, exc_info=error)


def log_span_lost(error: Exception) -> None:
    """Log an exception out of the tracer that the user set up."""
    log_raised("the tracer", "its spans are lost and counted", error)


def log_push_failed(error: Exception | None) -> None:
    """Log that a collector did not take a push, or that a push could not be made."""
    held = _limit.take("push")
    if held is not None:
        more = f" ({held} more since the last such line)" if held else ""
        logger.warning("a push over OTLP failed; the next one makes good%s", more, exc_info=error)


def log_fault(error: Exception) -> None:
    """Log an exception as a fault of this package; never raises, for it is the last resort."""
    with suppress(Exception):  # a handler or a filter of the user's may be what failed
        if _limit.take("fault") is not None:
            logger.error(
                "a fault in ws_lifecycle_metrics; the application is not affected", exc_info=error
            )


_said: set[str] = set()


def log_once(text: str) -> None:
    """Log a warning that is the same for the process's whole life."""
    if text not in _said:
        _said.add(text)
        logger.warning(text)


def log_advisories(package: str, version: str, found: tuple[Advisory, ...]) -> None:
    """Log, once, that the server is known to be bad: what happens, and what to do."""
    if not found or _limit.take(f"advisory {package}") is None:
        return
    worst = found[0]
    level = logging.WARNING if worst.severity == "error" else logging.INFO
    logger.log(
        level,
        "%s %s has %s (%s); the worst: %s; %s",
        package,
        safe_label(version),
        plural(len(found), "known fault"),
        ", ".join(advisory.id for advisory in found),
        worst.summary,
        worst.advice,
        extra={"advisories": [advisory.id for advisory in found], "package": package},
    )
