"""What is said of a detection, at once: a log record each, and the user's callback."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from queue import SimpleQueue

from ..config import StuckCallable
from ..labels import safe_label, trace_fields
from .stuck import StuckEvent

logger = logging.getLogger("ws_lifecycle_metrics")

MOST_RECORDS = 20
"""Log records of one scan; when everything is stuck at once, a number says the rest."""

MOST_LINES = 15
"""Lines of a stack in a log record, the innermost; the record's `stack` has them all."""

MOST_WAITING = 10_000
"""Events that wait for a callable that does not return; more are only logged."""


def report(events: Sequence[StuckEvent], callback: StuckCallable | None) -> None:
    """Log the detections of one scan and call `Config.on_stuck` for each."""
    for event in events[:MOST_RECORDS]:
        _log(logging.ERROR, event)
    if len(events) > MOST_RECORDS:
        logger.error("%d more connections are stuck", len(events) - MOST_RECORDS)
    if callback is not None:
        _caller.call(callback, events)


class _Caller:
    """Calls the user's callable in a thread of its own: it may block, or try to exit."""

    _calls: SimpleQueue[tuple[StuckCallable, StuckEvent]]
    _thread: threading.Thread | None = None

    def call(self, callback: StuckCallable, events: Sequence[StuckEvent]) -> None:
        """Have it called for each event; asked by the watchdog's thread alone."""
        if self._thread is None or not self._thread.is_alive():  # as in a forked child
            self._calls = SimpleQueue()
            self._thread = threading.Thread(
                target=_call_all, args=(self._calls,), name="ws-lifecycle-on-stuck", daemon=True
            )
            self._thread.start()
        for event in events[: max(0, MOST_WAITING - self._calls.qsize())]:
            self._calls.put((callback, event))


def _call_all(calls: SimpleQueue[tuple[StuckCallable, StuckEvent]]) -> None:
    while True:
        callback, event = calls.get()
        try:
            callback(event)
        except BaseException as error:  # also what would end the thread, such as SystemExit
            logger.error("Config.on_stuck raised", exc_info=error)


_caller = _Caller()


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
