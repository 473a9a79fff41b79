"""The user's tracer, through opentelemetry-api alone, and what is asked of it: never to raise.

Nothing is attached to a context: a conversation spans tasks, and a context that is detached in
another task than it was attached in is an error. Times are the monotonic clock's, turned to
Unix time by one reading of both clocks, so that no jump of the clock makes a negative duration.
"""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import (
    Link,
    NoOpTracerProvider,
    ProxyTracerProvider,
    Span,
    SpanContext,
    SpanKind,
    StatusCode,
    Tracer,
)

from ..store.snapshot import package_version
from .logs import log_span_lost
from .providers import Remembered

SCOPE = "ws_lifecycle_metrics"
MAX_FRAMES = 32

Attributes = Mapping[str, Any]
Event = tuple[int, str, Attributes]
"""Time on the monotonic clock, name and attributes."""

ROOT = Context()
"""A context without a span: what is started in it is the root of a new trace."""


def _tracer(provider: Any) -> Tracer | None:
    silent = isinstance(provider, (ProxyTracerProvider, NoOpTracerProvider))
    return None if silent else provider.get_tracer(SCOPE, package_version())


_tracers = Remembered(_tracer)


def tracer_of(provider: Any, lost: Callable[[], object]) -> Tracer | None:
    """Return the tracer of a provider, else of the global one; None where nobody set one.

    Looked up for each connection, so that a provider may be set at any time, in each process.
    One that raises makes no spans: `lost` is called.
    """
    try:
        return _tracers.of(trace.get_tracer_provider() if provider is None else provider)
    except Exception as error:  # noqa: BLE001  # a provider of the user's, or one that cannot load
        lost()
        log_span_lost(error)
        return None


if hasattr(os, "register_at_fork"):  # the parent's provider is not the child's business
    os.register_at_fork(after_in_child=_tracers.clear)


class SpanMaker:
    """Makes spans of a tracer; one that raises costs that span, which is counted.

    `lost` is called for each span that could not be made.
    """

    __slots__ = ("_lost", "_tracer", "_wall")

    def __init__(self, tracer: Tracer, lost: Callable[[], object]) -> None:
        self._tracer = tracer
        self._lost = lost
        self._wall = time.time_ns() - time.monotonic_ns()

    def wall(self, moment: int) -> int:
        """Return the Unix time, in nanoseconds, of a moment of the monotonic clock."""
        return moment + self._wall

    def start(
        self, name: str, started: int, context: Context, kind: SpanKind, attributes: Attributes
    ) -> Span | None:
        """Start a span; None where the tracer raised."""
        try:
            return self._tracer.start_span(
                name,
                context=context,
                kind=kind,
                attributes=attributes,
                start_time=started + self._wall,
            )
        except Exception as error:  # noqa: BLE001  # a sampler or processor of the user's
            self.lose(error)
            return None

    def end(
        self, span: Span, ended: int, error: BaseException | None = None, failed: bool = False
    ) -> None:
        """End a span; with `error` it is recorded, and makes the status ERROR if `failed`."""
        try:
            self._finish(span, ended, (), error, failed)
        except Exception as fault:  # noqa: BLE001  # a processor of the user's
            self.lose(fault)

    def make(
        self,
        name: str,
        started: int,
        ended: int,
        attributes: Attributes,
        *,
        links: Sequence[Link] = (),
        context: Context = ROOT,
        kind: SpanKind = SpanKind.INTERNAL,
        events: Iterable[Event] = (),
        error: BaseException | None = None,
        failed: bool = False,
    ) -> SpanContext | None:
        """Make a span of what is over; return its context if it is sampled."""
        try:
            span = self._tracer.start_span(
                name,
                context=context,
                kind=kind,
                attributes=attributes,
                links=links,
                start_time=started + self._wall,
            )
            self._finish(span, max(started, ended), events, error, failed)
            found = span.get_span_context()
        except Exception as fault:  # noqa: BLE001  # a sampler or processor of the user's
            self.lose(fault)
            return None
        return found if found.trace_flags.sampled else None

    def add_event(self, span: Span, event: Event) -> None:
        """Add an event to a span that has not ended."""
        moment, name, attributes = event
        try:
            span.add_event(name, attributes, moment + self._wall)
        except Exception as fault:  # noqa: BLE001  # as above
            self.lose(fault)

    def lose(self, error: Exception | None = None) -> None:
        """Count a span that is not made; log why, if something was raised."""
        self._lost()
        if error is not None:
            log_span_lost(error)

    def _finish(
        self,
        span: Span,
        ended: int,
        events: Iterable[Event],
        error: BaseException | None,
        failed: bool,
    ) -> None:
        for moment, name, attributes in events:
            span.add_event(name, attributes, moment + self._wall)
        if error is not None:
            kind = type_name(error)
            span.set_attribute("error.type", kind)
            span.add_event("exception", exception_attributes(error), ended + self._wall)
            if failed:
                span.set_status(StatusCode.ERROR, kind)
        elif failed:
            span.set_status(StatusCode.ERROR)
        span.end(ended + self._wall)


def type_name(error: BaseException) -> str:
    """Return the qualified name of an exception's class."""
    cls = type(error)
    return (
        cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"
    )


def exception_attributes(error: BaseException) -> dict[str, Any]:
    """Return what is recorded of an exception: its type and where it came from.

    Its message is left out, as it may quote what users sent.
    """
    return {
        "exception.type": type_name(error),
        "exception.stacktrace": _frames(error.__traceback__),
        "exception.escaped": True,
    }


def _frames(where: TracebackType | None) -> str:
    frames = [
        f"{frame.f_code.co_filename}:{line}:{frame.f_code.co_qualname}"
        for frame, line in traceback.walk_tb(where)
    ]
    return "\n".join(frames[-MAX_FRAMES:])
