"""Spans of one conversation: handshake, connection, messages, disconnect.

Only the handshake's span is ever open, from the start of the scope to the application's
answer. All others are made when what they tell of is over, with explicit times: nothing is
held over a wait in receive(), and nothing is lost with a task that is never ended.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from opentelemetry.trace import Link, Span, SpanContext, SpanKind, get_current_span

from .. import catalog
from ..protocol import Lifecycle, Rule, Severity
from ..store import exemplars
from ..store.layout import ROUTE_BLOCK, HistogramWords
from ..store.worker import Route
from . import carriers
from .span_attributes import (
    closed,
    connection_attributes,
    describe,
    handshake_attributes,
    message,
)
from .tracer import ROOT, Attributes, Event, SpanMaker, tracer_of

if TYPE_CHECKING:
    from ..config import Config

SLOW_NS = 100_000_000
"""A send() that takes longer, in ns, gets a span also when the budget is spent."""
MAX_FINDINGS = 128
"""Spans of violations, errors and slow sends that a connection gets beyond its budget."""
MAX_EVENTS = 16
MAX_RULES = 16

_HANDSHAKE = ROUTE_BLOCK[catalog.HANDSHAKE_DURATION.name].histogram()
_CONNECTION = ROUTE_BLOCK[catalog.CONNECTION_DURATION.name].histogram()
_SEND = ROUTE_BLOCK[catalog.SEND_DURATION.name].histogram()

_STATUS = {"accepted": 101, "rejected": 403, "error": 500}


def begin(
    config: Config, scope: Mapping[str, Any], opened_at: int, lost: Callable[[], object]
) -> tuple[ConnectionSpans | None, SpanContext | None]:
    """Start the span of a handshake; return the connection's spans and the span's context.

    The spans are None where the connection is not sampled, both where no provider is set.
    `opened_at` is CLOCK_MONOTONIC in ns; `lost` is called for each span that is not made.
    """
    tracer = tracer_of(config.tracer_provider, lost)
    if tracer is None:
        return None, None
    maker = SpanMaker(tracer, lost)
    parent = carriers.from_headers(scope.get("headers"))
    attributes = handshake_attributes(scope, config.span_client_address)
    method = attributes["http.request.method"]
    span = maker.start(method, opened_at, parent or ROOT, SpanKind.SERVER, attributes)
    if span is None:
        return None, None
    context = span.get_span_context()
    if not span.is_recording():
        return None, context if context.is_valid else None
    budget = -1 if config.span_budget is None else config.span_budget
    spans = ConnectionSpans(maker, span, method, opened_at, budget)
    spans.looks_for_parent = parent is None
    return spans, context


class ConnectionSpans:
    """The spans of one sampled conversation. Moments are CLOCK_MONOTONIC, in ns.

    `links` are the handshake and, if the client sent a context in `connection_init`, that one.
    """

    __slots__ = (
        "_accepted_at",
        "_closing_at",
        "_error",
        "_failed",
        "_findings_left",
        "_handling",
        "_handshake",
        "_maker",
        "_method",
        "_opened_at",
        "_receive_events",
        "_rules",
        "_send_events",
        "_stuck",
        "context",
        "links",
        "looks_for_parent",
        "receives_left",
        "sends_left",
    )

    def __init__(
        self, maker: SpanMaker, handshake: Span, method: str, opened_at: int, budget: int
    ) -> None:
        self.context = handshake.get_span_context()
        self.links: tuple[Link, ...] = (Link(self.context),)
        self.looks_for_parent = False
        self.receives_left = self.sends_left = budget  # below 0: no limit
        self._maker = maker
        self._handshake: Span | None = handshake
        self._method = method
        self._opened_at = opened_at
        self._accepted_at = self._closing_at = 0
        self._handling: tuple[int, int, int] | None = None
        self._receive_events: list[Event] = []
        self._send_events: list[Event] = []
        self._findings_left = MAX_FINDINGS
        self._rules: dict[str, None] = {}
        self._stuck: dict[str, None] = {}
        self._error: BaseException | None = None
        self._failed = False

    @property
    def receives_done(self) -> bool:
        """Whether no receive() needs to be looked at any more."""
        return not self.receives_left and self._handling is None

    # The handshake.

    def answered(
        self, result: str, at: int, route: Route, subprotocol: str | None, status: object
    ) -> None:
        """End the handshake's span. `status` is that of a denial response."""
        span, self._handshake = self._handshake, None
        if span is None:
            return
        if result == "accepted":
            self._accepted_at = at
        code = status if result == "denied" else _STATUS.get(result)
        try:
            if span.is_recording():
                describe(span, self._method, route.name, subprotocol, code)
        except Exception as error:  # noqa: BLE001  # as all that a tracer of the user's may raise
            self._maker.lose(error)
        failed = type(code) is int and code >= 500
        self._maker.end(span, at, self._error, failed)
        sampled = self.context if self.context.trace_flags.sampled else None
        self._exemplify(_HANDSHAKE, route, at - self._opened_at, at, sampled)

    def _exemplify(
        self, histogram: HistogramWords, route: Route, took: int, at: int, trace: SpanContext | None
    ) -> None:
        """Leave the trace of a duration beside the histogram that counts it."""
        if trace is not None:
            ids = trace.trace_id, trace.span_id
            exemplars.write(histogram, route.words, took, ids, self._maker.wall(at))

    # Messages.

    def received(self, at: int, kind: int, size: int, text: object) -> None:
        """Note that a message was delivered; `text` is its own, for a `connection_init`."""
        if not self.receives_left:
            return
        self.receives_left -= 1
        self._handling = (at, kind, size)
        if self.looks_for_parent and kind == 0:
            remote = carriers.from_message(text)
            if remote is not None:
                self.looks_for_parent = False
                self.links += (Link(get_current_span(remote).get_span_context()),)

    def receive_called(self, at: int) -> None:
        """Make the span of the message before, which has been dealt with."""
        self._handled(at)

    def _handled(self, at: int, error: BaseException | None = None) -> None:
        if self._handling is not None:
            (started, kind, size), self._handling = self._handling, None
            events, self._receive_events = self._receive_events, []
            self._make(
                "websocket receive", started, at, message(kind, size), events, error, self._failed
            )

    def sent(
        self,
        at: int,
        took: int,
        kind: int,
        size: int,
        route: Route,
        error: BaseException | None = None,
        failed: bool = False,
    ) -> None:
        """Make the span of a send() that returned or raised, if the budget or its end says so."""
        if self.sends_left:
            self.sends_left -= 1
        elif (error is None and took < SLOW_NS) or not self._may_find():
            return
        events, self._send_events = self._send_events, []
        attributes = message(kind, size)
        trace = self._make("websocket send", at - took, at, attributes, events, error, failed)
        if error is None:
            self._exemplify(_SEND, route, took, at, trace)

    # Findings.

    def violated(self, rule: Rule, at: int, sending: bool) -> None:
        """Note a violation on the span at hand, else as a span of its own."""
        if len(self._rules) < MAX_RULES:
            self._rules[rule.id] = None
        attributes = {
            "websocket.violation.rule": rule.id,
            "websocket.violation.party": str(rule.party),
            "websocket.violation.severity": str(rule.severity),
        }
        event = (at, "websocket.violation", attributes)
        events = self._send_events if sending else self._receive_events
        at_hand = self.sends_left if sending else self._handling is not None
        if self._handshake is not None:
            self._maker.add_event(self._handshake, event)
        elif at_hand and len(events) < MAX_EVENTS:
            events.append(event)
        elif rule.severity is not Severity.INFO and self._may_find():
            self._make("websocket violation", at, at, attributes)

    def stuck(self, reason: str) -> None:
        """Note that the connection was found stuck."""
        if len(self._stuck) < MAX_RULES:
            self._stuck[reason] = None

    def _may_find(self) -> bool:
        if self._findings_left:
            self._findings_left -= 1
            return True
        self._maker.lose()
        return False

    # The end.

    def closing(self, at: int) -> None:
        """Note that the disconnect was delivered, or that the application closed."""
        self._closing_at = self._closing_at or at

    def raised(self, error: BaseException, failed: bool) -> None:
        """Note the exception that left the application; `failed`: it is nobody's departure."""
        self._error, self._failed = error, failed

    def ended(
        self, at: int, record: memoryview, lifecycle: Lifecycle, route: Route, initiator: str
    ) -> None:
        """Make the spans that last to the end of an accepted connection."""
        if not self._accepted_at:
            return
        self._handled(at, self._error)
        whole = connection_attributes(record, lifecycle, route.name)
        whole["websocket.close.initiator"] = initiator
        if self._closing_at:
            self._make("websocket disconnect", self._closing_at, at, closed(whole))
        if self._rules:
            whole["websocket.violation.rules"] = tuple(self._rules)
        if self._stuck:
            whole["websocket.stuck.reason"] = tuple(self._stuck)
        events = [*self._receive_events, *self._send_events]
        name, started = "websocket connection", self._accepted_at
        trace = self._make(name, started, at, whole, events, self._error, self._failed)
        self._exemplify(_CONNECTION, route, at - started, at, trace)

    def _make(
        self,
        name: str,
        started: int,
        ended: int,
        attributes: Attributes,
        events: list[Event] | tuple[()] = (),
        error: BaseException | None = None,
        failed: bool = False,
    ) -> SpanContext | None:
        return self._maker.make(
            name,
            started,
            ended,
            attributes,
            links=self.links,
            events=events,
            error=error,
            failed=failed,
        )
