"""One WebSocket: its protocol state, its record in the segment, its spans.

Inner calls are made when the outer ones are, in the same order, with the same objects;
exceptions and cancellations pass as they are.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from . import catalog
from .catalog import code_label
from .integrations.graphql_ws import Served
from .labels import TraceIds
from .protocol import (
    OPEN,
    SHIELDED,
    SHIELDED_AT_END,
    Findings,
    Lifecycle,
    Rule,
    ServerState,
    Severity,
)
from .protocol.fields import CLEAN
from .protocol.payload import is_plain, payload, utf8_size
from .protocol.table import FINISHED, GONE
from .store import layout as at
from .store.layout import FAST_NS, ROUTE_BLOCK
from .store.tally import VOID, Tally
from .store.worker import Route, Worker
from .telemetry.logs import log_fault, log_violation
from .watchdog.heartbeat import give_way, is_asyncio, running_loop

if TYPE_CHECKING:
    from .middleware import LifecycleMiddleware
    from .telemetry.spans import ConnectionSpans

ASGIApp = Callable[[Any, Any, Any], Awaitable[Any]]
Scope = Any
Message = Any
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[Any]]
Begun = tuple[int, bool, int | None, int]
"""When a send that is timed began, whether it breaks no rule above info, its `payload`."""

VANISHED = 1006  # RFC 6455 7.4.1: the connection was lost without a close frame
SCOPES_JUDGED = 100

_HANDSHAKES = ROUTE_BLOCK[catalog.HANDSHAKES.name].offsets
_HANDSHAKE_DURATION = ROUTE_BLOCK[catalog.HANDSHAKE_DURATION.name].histogram()
_CONNECTION_DURATION = ROUTE_BLOCK[catalog.CONNECTION_DURATION.name].histogram()
_CLOSES = ROUTE_BLOCK[catalog.CLOSES.name].offsets
_SEND_DURATION = ROUTE_BLOCK[catalog.SEND_DURATION.name].histogram()
_APP_ERRORS = ROUTE_BLOCK[catalog.APP_ERRORS.name].offsets[()]
_SHIELDED_SENDS = ROUTE_BLOCK[catalog.SHIELDED_SENDS.name].offsets[()]
_VIOLATIONS = {
    rule: word for (_, rule), word in ROUTE_BLOCK[catalog.PROTOCOL_VIOLATIONS.name].offsets.items()
}
# Registered for servers alone (IANA's registry of close codes): a restart.
_SERVER_CODES = frozenset({1012})

DROP: Begun = (0, False, None, 0)
"""Of a send that is not made: told by identity."""

_now = time.monotonic_ns
# Both raise TypeError for whatever is of another type.
_is_ascii = str.isascii
_bytes_len = bytes.__len__


class ProtocolViolation(Exception):  # noqa: N818  # the field's word: it is no error of ours
    """A rule of severity error was broken, under the policy `strict`."""

    def __init__(self, rule: Rule) -> None:
        super().__init__(f"{rule.id}: {rule.meaning}; {rule.hint}")
        self.rule = rule


class Conversation(Tally):
    """One run of a WebSocket scope: its protocol state and its record in the segment."""

    __slots__ = (
        "_answer",
        "_inner_receive",
        "_inner_send",
        "_lifecycle",
        "_middleware",
        "_opened_at",
        "_route",
        "_routed",
        "_scope",
        "_served",
        "_spans",
        "_task",
        "_trace",
        "awaitable",
    )

    def __init__(
        self,
        middleware: LifecycleMiddleware,
        worker: Worker,
        scope: Scope,
        receive: Receive,
        send: Send,
        served: Served,
    ) -> None:
        Tally.__init__(self, worker)
        self._middleware = middleware
        self._served = served
        served.serial = self._serial
        self._scope = scope
        self._inner_receive = served.watch(self, receive)
        self._inner_send = send
        self._lifecycle = Lifecycle(scope)
        self._answer: Message = None  # the event that answers the handshake
        # What the application returned, while it runs: the watchdog sees in it where it waits.
        self.awaitable: Any = None
        self._task: asyncio.Task[Any] | None = None
        self._opened_at = _now()
        config = middleware.config
        # A callable of the user's needs no routing to have taken place.
        self._routed = config.route is not None
        self._route = worker.route(middleware.template(scope) if self._routed else None)
        self._begin_record(self._route)
        self._spans: ConnectionSpans | None = None
        self._trace: TraceIds | None = None
        # Who set a provider has imported this: where nobody did, nothing is to be traced.
        if "opentelemetry.trace" in sys.modules or config.tracer_provider is not None:
            self.guard(self._begin_spans)

    def _begin_record(self, route: Route) -> None:
        self._words = words = route.take()
        words[at.SERIAL] = self._serial
        words[at.OPENED_AT] = words[at.STATE_AT] = self._opened_at
        words[at.OWN] = at.NOTHING
        words[at.BASES] = words[at.COUNTED]
        words[at.STATE] = self._lifecycle.state.code + 1

    @property
    def record(self) -> memoryview:
        """The words of this connection; after its end, words that nobody reads."""
        return self._words

    @property
    def spans(self) -> ConnectionSpans | None:
        """Its spans; None where it is not sampled, and after its end."""
        return self._spans

    @property
    def over(self) -> bool:
        """Whether either side has closed, or the client is lost."""
        return self._lifecycle.state.server in GONE or self._lifecycle.state.app in FINISHED

    def shares(self, scope: Scope) -> bool:
        """Whether `scope` is of the same connection: the same one, or a shallow copy of it."""
        headers = scope.get("headers")
        # An empty tuple is the same object everywhere.
        return bool(headers) and headers is self._scope.get("headers")

    # What the application and the server do, in the order of a conversation.

    async def receive(self) -> Message:
        """Receive as the server does, and count what came."""
        if self._receives is None:
            self._receives = True
        else:
            self.guard(self._receive_called)
            self._receiving += 1
        inner_receive = self._inner_receive  # a call in one step would look it up as a method
        try:
            message = await inner_receive()
        except BaseException as error:
            self.guard(self._receive_failed, error)
            raise
        try:  # inline, as in `send`: a call would cost a quarter of all that is added here
            if self._receives and type(message) is dict and message["type"] == "websocket.receive":
                text = message.get("text")
                if text is None:
                    self._received_bytes += _bytes_len(message["bytes"])
                    self._received_binary += 1
                    self._receives = None
                    return message
                if len(message) == 2 or message["bytes"] is None:
                    self._received_bytes += len(text) if _is_ascii(text) else utf8_size(text)
                    self._received_text += 1
                    self._receives = None
                    return message
        except Exception:  # noqa: BLE001  # not one payload of the right type, or no message at all
            pass
        self.guard(self._received, message)
        return message

    async def send(self, message: Message) -> Any:  # noqa: C901, PLR0912  # inline
        """Send as the application does, and count what the server took."""
        size: int | None  # of a message on the quick way
        begun: Begun | None  # on the other
        size = begun = None
        try:
            if (
                self._sends is None
                and type(message) is dict
                and message["type"] == "websocket.send"
            ):
                text = message.get("text")
                if text is None:
                    size = _bytes_len(message["bytes"])
                elif len(message) == 2 or message["bytes"] is None:
                    size = len(text) if _is_ascii(text) else utf8_size(text)
        except Exception:  # noqa: BLE001  # not one payload of the right type, or no message at all
            pass
        if size is not None:
            # A slow send has a span of its own, where spans are made.
            self._sends = True if self._spans is None else _now()
        else:
            begun = self.guard(self._about_to_send, message)
            if begun is DROP:
                return await give_way()
            self._sending += 1
        inner_send = self._inner_send
        try:
            result = await inner_send(message)
        except BaseException as error:
            self.guard(self._send_failed, message, error, begun)
            raise
        began = self._sends
        if size is not None and (began is True or (began and _now() - began < FAST_NS)):
            self._sent_bytes += size
            if text is None:
                self._sent_binary += 1
            else:
                self._sent_text += 1
            self._sends = None
        else:
            self.guard(self._sent, message, begun)
        return result

    # What the watchdog asks for, on this loop.

    def found_stuck(self, reason: str) -> TraceIds | None:
        """Note that it was found stuck; return trace and span of its handshake, if it has any."""
        if self._spans is not None:
            self._spans.stuck(reason)
        return self._trace

    def cancel(self) -> None:
        """Cancel the task that runs the application, if `Config.cancel_stuck_closing` kept it."""
        if self._task is not None:
            self._task.cancel("stuck in closing (ws_lifecycle_metrics)")

    def move(self, worker: Worker) -> None:
        """Go on in another worker's segment."""
        self.publish(_now())
        old, name = self._words, self._route.name
        self._worker, self._route = worker, worker.route(name)
        self._served.move(worker)
        worker.live[self._serial] = self
        self._begin_record(self._route)
        self._words[at.STATE_AT] = old[at.STATE_AT]
        self._words[at.OWN] = old[at.OWN]
        self._words[at.SUBPROTOCOL] = 0
        if old[at.SUBPROTOCOL]:
            self._words[at.SUBPROTOCOL] = worker.subprotocol(self._lifecycle.subprotocol or "")

    # What is noted on the way; each of these runs behind the one boundary, `guard`.

    def guard(self, step: Callable[..., Any], *arguments: Any) -> Any:
        """Run a step of ours; a fault in it is counted and logged, and the step gives None."""
        try:
            return step(*arguments)
        except ProtocolViolation:
            raise
        except Exception as error:  # noqa: BLE001  # the boundary that keeps our faults to ourselves
            log_fault(error)
            self._worker.count_internal_error()
        return None

    def begin(self) -> None:
        """Note that the application is about to be called."""
        self._worker.live[self._serial] = self
        if self._middleware.config.cancel_stuck_closing and is_asyncio(running_loop()):
            task = asyncio.current_task()
            # Trio has none; some servers' are no tasks at all, and crash when they are touched.
            self._task = task if isinstance(task, asyncio.Task) else None
        # A server builds all its scopes alike, so the first ones speak for the rest.
        if self._serial <= SCOPES_JUDGED:
            if str(self._scope.get("http_version", "1.1")) >= "2":
                self._worker.segment.header[at.SHARED_SOCKETS] = 1
            self._flag(self._lifecycle.opened())

    def _receive_called(self) -> None:
        self._slow_receives()
        self._words[at.RECEIVING] = self._receiving + 1
        if self._spans is not None:
            self._spans.receive_called(_now())
            self._choose_way()
        rules = self._lifecycle.receive_called(self._receiving)
        if rules:
            self._flag(rules)

    def _receive_failed(self, error: BaseException) -> None:
        self._slow_receives()
        self._receiving -= 1
        self._words[at.RECEIVING] = self._receiving
        self._flag(self._lifecycle.receive_failed(error, here=self._worker.is_here()))

    def _received(self, message: Message) -> None:
        """Note what came on any but the quick way."""
        self._slow_receives()
        self._receiving -= 1
        words = self._words
        words[at.RECEIVING] = self._receiving
        words[at.RECEIVED_AT] = received_at = _now()
        kind, size = payload(message, "websocket.receive")
        rules = CLEAN
        if not self._quick_receive or not is_plain(message, kind):
            rules = self._lifecycle.received(message)
            self._note_state(received_at)
        if kind is not None:
            words[at.RECEIVED_BYTES] += size
            words[at.RECEIVED[kind]] += 1
            if self._spans is not None:
                self._spans.received(received_at, kind, size, message.get("text"))
            if self._quick_receive and not self._receiving and self._beats():
                self._receives = None
        if rules:
            self._flag(rules)

    def _about_to_send(self, message: Message) -> Begun:
        """Judge and measure an event before it is sent; DROP says that it is not to be."""
        self._slow_sends()
        now = _now()
        kind, size = payload(message, "websocket.send")
        begun = now, True, kind, size
        if not self._quick_send or not is_plain(message, kind):
            rules = self._judge(message, now)
            if rules:
                if self._drops(rules):
                    self._route.words[_SHIELDED_SENDS] += 1
                    begun = DROP
                elif any(rule.severity is not Severity.INFO for rule in rules):
                    begun = now, False, kind, size
                self._flag(rules, sending=True)
        if begun is not DROP:
            self._sent_at = self._words[at.SENT_AT] = now
            self._words[at.SENDING] = self._sending + 1
        return begun

    def _judge(self, message: Message, now: int) -> Findings:
        self._slow_receives()
        answered = self._lifecycle.result is not None
        rules = self._lifecycle.sent(message, receives_pending=self._receiving)
        if self._lifecycle.result is not None:
            if not answered:
                self._answer = message
            if not self._routed:
                self._find_route()
        self._note_state(now)
        return rules

    def _drops(self, rules: Findings) -> bool:
        """Whether an event that breaks these rules is kept from the server."""
        if self._middleware.config.policy != "shield":
            return False
        # What is out of order moves nothing: if this is the end, it was the end before.
        dropped = SHIELDED_AT_END if self._lifecycle.state.app in FINISHED else SHIELDED
        return any(rule.id in dropped for rule in rules)

    def _sent(self, message: Message, begun: Begun | None) -> None:
        """Note a send on any but the quick way; `begun` is None if it began there."""
        self._slow_sends()
        started, _, kind, size = begun or self._begun_quickly(message)
        took = _now() - started
        self._sending -= 1
        words = self._words
        words[at.SENDING] = self._sending
        if kind is None:
            # Not when another send, begun before, returns while the answer is in flight.
            result = self._lifecycle.result if message is self._answer else None
            if result is not None and not words[at.ANSWERED_AT]:
                status = message.get("status") if type(message) is dict else None
                self._count_handshake(result, status)
            return
        slow = took >= FAST_NS and words is not VOID
        if slow:
            self._route.words[_SEND_DURATION.bucket(took)] += 1
            self._timed = 2
        else:
            self._took = took
        words[at.SENT_BYTES] += size
        words[at.SENT_NS] += took
        words[at.SENT[kind + 2 * slow]] += 1
        if self._spans is not None:
            self._spans.sent(_now(), took, kind, size, self._route)
            self._choose_way()
        # Once a send was slow, each one is timed until a beat has passed without.
        if self._quick_send and not self._sending and not self._timed and self._beats():
            self._sends = None

    def _begun_quickly(self, message: Message) -> Begun:
        return self._sent_at, True, *payload(message, "websocket.send")

    def _send_failed(self, message: Message, error: BaseException, begun: Begun | None) -> None:
        self._slow_sends()
        started, legal, kind, size = begun or self._begun_quickly(message)
        took = _now() - started
        self._sending -= 1
        self._words[at.SENDING] = self._sending
        here = self._worker.is_here()
        rules = self._lifecycle.send_failed(message, error, legal, here=here)
        self._note_state(_now())
        self._flag(rules, sending=True)
        if self._spans is not None and kind is not None:
            failed = any(rule.severity is Severity.ERROR for rule in rules)
            self._spans.sent(_now(), took, kind, size, self._route, error, failed)

    # However it ends, and whatever goes wrong in noting it, the record is given back.

    def end(self, error: BaseException | None = None) -> None:
        """Note that the application has returned, raised or been cancelled."""
        try:
            self._slow_receives()
            self.awaitable = self._task = None
            self._worker.live.pop(self._serial, None)
            if not self._routed:
                self._find_route()
            if error is None:
                rules = self._lifecycle.returned(self._receiving)
                if rules:
                    self._flag(rules)
            elif isinstance(error, Exception) and type(error) is not ProtocolViolation:
                self._raised(error)
            else:  # what `strict` raised was flagged when it was broken
                self._flag(self._lifecycle.cancelled(), strict=False)
        finally:
            self._end("error" if error is None or isinstance(error, Exception) else "aborted")

    def _raised(self, error: Exception) -> None:
        rules = self._lifecycle.raised(error, self._receiving)
        self._flag(rules, strict=False)  # the application's own exception is the better one
        if any(rule.id == "app.exception" for rule in rules):
            self._route.words[_APP_ERRORS] += 1
        if self._spans is not None:
            gone = self._lifecycle.state.server in GONE
            self._spans.raised(error, failed=bool(rules) or not gone)

    def _flag(self, rules: tuple[Rule, ...], strict: bool = True, sending: bool = False) -> None:
        for rule in rules:
            self._route.words[_VIOLATIONS[rule.id]] += 1
            self._words[at.VIOLATIONS] += 1
            log_violation(rule, self._route.name, self._trace)
            if self._spans is not None:
                self._spans.violated(rule, _now(), sending)
        if strict and self._middleware.config.policy == "strict":
            for rule in rules:
                if rule.severity is Severity.ERROR:
                    raise ProtocolViolation(rule)

    def _note_state(self, now: int) -> None:
        state = self._lifecycle.state
        word = state.code + 1
        words = self._words
        if words[at.STATE] != word:
            if state is OPEN or self._quick_receive or self._quick_send:
                self._choose_way()
            words[at.STATE], words[at.STATE_AT] = word, now
            if self._lifecycle.close_initiator is not None:
                words[at.CLOSE_CODE] = self._lifecycle.close_code or 0
            if self._spans is not None and state.label == "closing":
                self._spans.closing(now)

    def _choose_way(self) -> None:
        """Let plain messages take the quick way: in an open connection, once no span is due."""
        spans = self._spans
        is_open = self._lifecycle.state is OPEN
        self._quick_receive = is_open and (spans is None or spans.receives_done)
        self._quick_send = is_open and (spans is None or not spans.sends_left)
        if not self._quick_receive:
            self._slow_receives()
        if not self._quick_send:
            self._slow_sends()

    def _find_route(self) -> None:
        """Go on with the counters and a record of the route, now that it can be known."""
        self._routed = True
        route = self._worker.route(self._middleware.template(self._scope))
        if route is self._route:
            return
        self.publish(_now())
        old = self._words
        self._begin_record(route)
        self._words[at.STATE_AT] = old[at.STATE_AT]
        self._words[at.OWN] = old[at.OWN]
        self._route.give_back(old)
        self._route = route

    def _count_handshake(self, result: str, status: object = None) -> None:
        self._words[at.ANSWERED_AT] = answered = _now()
        subprotocol = self._lifecycle.subprotocol
        if subprotocol is not None:
            self._words[at.SUBPROTOCOL] = self._worker.subprotocol(subprotocol)
        words = self._route.words
        words[_HANDSHAKES[(result,)]] += 1
        _HANDSHAKE_DURATION.observe(words, answered - self._opened_at)
        if self._spans is not None:
            subprotocol = self._lifecycle.subprotocol
            self._spans.answered(result, answered, self._route, subprotocol, status)

    def _begin_spans(self) -> None:
        from .telemetry.spans import begin

        lost = self._worker.count_dropped_span
        config = self._middleware.config
        self._spans, context = begin(config, self._scope, self._opened_at, lost)
        if context is not None:
            self._trace = context.trace_id, context.span_id

    def _end(self, result: str) -> None:
        """Count the end; `result` is the handshake's if the application never answered."""
        record = self._words
        try:
            if self._is_noted:
                self._worker.noted.pop(self._serial, None)
                self.publish(_now())
            self._count_end(record, result)
        finally:
            self._words, self._spans = VOID, None
            self._quick_receive = self._quick_send = False
            if not self._served.keep(self._route, record):
                self._route.give_back(record)

    def _count_end(self, record: memoryview, result: str) -> None:
        answered = record[at.ANSWERED_AT]
        if not answered:
            gone = self._lifecycle.state.server in GONE
            self._count_handshake("aborted" if gone else result)
        elif self._lifecycle.accepted:
            labels, ended = self._close_labels(), _now()
            self._route.words[_CLOSES[labels]] += 1
            _CONNECTION_DURATION.observe(self._route.words, ended - answered)
            if self._spans is not None:
                self._spans.ended(ended, record, self._lifecycle, self._route, labels[0])

    def _close_labels(self) -> tuple[str, str]:
        """Return initiator and code; who closed first is told by order, never by the code."""
        lifecycle = self._lifecycle
        code = lifecycle.close_code
        initiator: str | None = lifecycle.close_initiator
        if initiator is None:
            return "server", catalog.OTHER_CODE
        if lifecycle.state.server is ServerState.LOST and code is None:
            code = VANISHED
        if initiator == "client" and (code in _SERVER_CODES or self._worker.draining):
            initiator = "server"
        return initiator, code_label(code)
