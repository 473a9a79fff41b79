"""What is said of a detection, at once: a log record each, and the user's callback."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from ..labels import safe_label, trace_fields
from .stuck import StuckEvent

logger = logging.getLogger("ws_lifecycle_metrics")

MOST_RECORDS = 20
"""Log records of one scan; when everything is stuck at once, a number says the rest."""

MOST_LINES = 15
"""Lines of a stack in a log record, the innermost; the record's `stack` has them all."""


def report(events: Sequence[StuckEvent], callback: Callable[[StuckEvent], object] | None) -> None:
    """Log the detections of one scan and call `Config.on_stuck` for each."""
    for event in events[:MOST_RECORDS]:
        _log(logging.ERROR, event)
    if len(events) > MOST_RECORDS:
        logger.error("%d more connections are stuck", len(events) - MOST_RECORDS)
    for event in events if callback is not None else ():
        try:
            callback(event)  # type: ignore[misc]  # not None, or there are no events
        except Exception as error:  # the user's callable may do anything
            logger.error("Config.on_stuck raised", exc_info=error)
            return


def log_stall(event: StuckEvent) -> None:
    """Log that a loop is held up, with the stack of its thread."""
    _log(logging.WARNING, event)


def log_fault(error: Exception) -> None:
    """Log an exception as a fault of this package."""
    logger.error("a fault in the watchdog; the application is not affected", exc_info=error)


def _log(level: int, event: StuckEvent) -> None:
    at = f"at {event.where}" if event.where else "at no line of the application's"
    if event.connection is None:
        subject = f"the event loop of worker {event.worker}"
    else:
        subject = f"connection {event.connection} of worker {event.worker} on "
        subject += safe_label(event.http_route)
    stack = "".join(
        f"\n  {'>' if line == event.where else ' '} {line}" for line in event.stack[-MOST_LINES:]
    )
    verb = "is stuck" if level == logging.ERROR else "is held up"
    logger.log(
        level,
        "%s %s: %s for %.1f s, %s%s",
        *(subject, verb, event.reason, event.seconds, at, stack),
        extra={
            "stuck_reason": event.reason,
            "stuck_seconds": round(event.seconds, 3),
            "worker": event.worker,
            "connection": event.connection,
            "http_route": event.http_route,
            "stack": list(event.stack),
            "where": event.where,
            **trace_fields(event.trace),
        },
    )
