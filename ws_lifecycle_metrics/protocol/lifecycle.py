"""Follow one conversation: each call reports what just happened, and returns the rules it broke.

It holds no reference to payloads, knows no time, and never raises, whatever it is given.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, TypeAlias

from .fields import CLEAN, RECEIVED, SCOPE, SENT, read
from .rules import RULES, Findings
from .table import FINISHED, GONE, INITIAL, LEGAL, STATES, UNANSWERED, Event, State

Initiator: TypeAlias = Literal["app", "client"]
Result: TypeAlias = Literal["accepted", "rejected", "denied"]


def _compile() -> Mapping[State, Mapping[Event, tuple[State, Findings]]]:
    """Turn the rows of the table and of the rules into one lookup a state."""
    moves: dict[State, dict[Event, tuple[State, Findings]]] = {state: {} for state in STATES}
    claimants = [(LEGAL, CLEAN), *((rule.claims, (rule,)) for rule in RULES.values())]
    for claims, findings in claimants:
        for claim in claims:
            for state, after in claim.cells():
                moves[state][claim.event] = after, findings
    return moves


_MOVES: Final = _compile()

# The member is bound once: on Python 3.11 reading it from the class costs more than a dict.
_CONNECT, _ACCEPT, _SEND = Event.CONNECT, Event.ACCEPT, Event.SEND
_CLOSE, _DISCONNECT = Event.CLOSE, Event.DISCONNECT

_ACCEPT_TWICE: Final = (RULES["app.accept-twice"],)
_CLOSE_PENDING: Final = (RULES["app.close-with-receive-pending"],)
_CONCURRENT: Final = (RULES["app.receive-concurrent"],)
_RETURN_PENDING: Final = (RULES["app.receive-pending-at-return"],)
_SEND_WRONG_TYPE: Final = (RULES["app.send-wrong-type"],)
_NON_OSERROR: Final = (RULES["server.send-raised-non-oserror"],)
_SEND_FAILED: Final = (RULES["server.send-failed"],)
_FAILED: Final[Mapping[Event, Findings]] = {
    Event.ACCEPT: (RULES["server.accept-failed"],),
    Event.CLOSE: (RULES["server.close-failed"],),
}

_MAX_REMEMBERED: Final = 4


class Lifecycle:
    """The state of one conversation, and what became of it.

    ``state`` moves when a call begins, not when it returns: the order of the calls is what the
    application decided. ``close_initiator`` is who ended the connection first, by order and
    never by code; ``close_code`` is the code of that close, None if it had no valid one.
    """

    __slots__ = (
        "_answer",
        "_repeated_connects",
        "_scope",
        "_server_errors",
        "close_code",
        "close_initiator",
        "result",
        "state",
        "subprotocol",
    )

    def __init__(self, scope: object) -> None:
        self.state: State = INITIAL
        self.result: Result | None = None
        self.subprotocol: str | None = None
        self.close_initiator: Initiator | None = None
        self.close_code: int | None = None
        self._scope: Mapping[str, Any] = scope if isinstance(scope, (dict, Mapping)) else {}
        self._answer: object = None  # the accept that completes the handshake
        self._repeated_connects = 0
        # Kept alive until the end: a built-in exception takes no weak reference, and its id is
        # given out again as soon as it is gone.
        self._server_errors: tuple[BaseException, ...] = ()

    @property
    def accepted(self) -> bool:
        """Whether the application accepted, and the server did not fail at it."""
        return self.result == "accepted"

    def opened(self) -> Findings:
        """Judge the scope."""
        return read(self._scope, self._scope, SCOPE)[1]

    def sent(self, message: object, *, receives_pending: int = 0) -> Findings:
        """Follow a call of ``send``, made while ``receives_pending`` calls were in flight."""
        event, findings, detail = read(message, self._scope, SENT)
        if event is None:
            return findings
        before = self.state
        self.state, misplaced = _MOVES[before][event]
        if self.state is not before:
            self._follow(before, event, message, detail)
            if receives_pending and event is _CLOSE:
                misplaced += _CLOSE_PENDING
            return misplaced + findings
        if message is self._answer:
            self._answer = None  # the same object again: it tells the two calls apart no more
        if misplaced == _ACCEPT_TWICE and self._repeated_connects:
            self._repeated_connects -= 1  # it answers the server's second connect
            return findings
        if misplaced:
            return misplaced  # the fields of what may not be sent at all do not matter
        return misplaced + findings

    def _follow(self, before: State, event: Event, message: object, detail: Any) -> None:
        """Note what the application's move means for the connection."""
        if event is _ACCEPT:
            self.result, self.subprotocol, self._answer = "accepted", detail, message
        elif event is _CLOSE:
            self.close_initiator, self.close_code = "app", detail
            if before.app is UNANSWERED:
                self.result = "rejected"
        elif event is Event.DENIAL_START:
            self.result = "denied"
        else:
            self.close_initiator = "app"  # the last body ends the connection, without a code

    def send_failed(
        self, message: object, exc: BaseException, legal: bool, *, here: bool = True
    ) -> Findings:
        """Follow a ``send`` that raised; ``legal``: it broke no rule above info.

        ``here``: it was called in the thread that serves the connection.
        """
        if not here and not _means_departure(exc):
            return CLEAN  # what the server waits for is its loop's; what was sent may have gone
        event, _, unusual = read(message, self._scope, SENT)
        if event is None or not isinstance(exc, Exception):
            return CLEAN  # a server may refuse what it does not know; a cancellation is no fault
        if message is self._answer:
            self.result = self.subprotocol = None
        if self.state.server in GONE:
            self._remember(exc)
            told = isinstance(exc, OSError) or self.state.app in FINISHED
            return CLEAN if told else _NON_OSERROR
        if not legal:
            return CLEAN  # this server did as the specification asks
        findings = self._judge_failure(event, message, exc)
        if event is _SEND and findings and (unusual or isinstance(exc, UnicodeError)):
            return _SEND_WRONG_TYPE  # what is tolerated is the application's fault once refused
        self._remember(exc)
        return findings

    def _judge_failure(self, event: Event, message: object, exc: Exception) -> Findings:
        """Decide what it means that a legal send raised with the client still there."""
        departed = _means_departure(exc)
        if departed or message is self._answer:  # without its accept there is no connection
            self.state = _MOVES[self.state][Event.SEND_LOST][0]
        if departed:
            if event is _CLOSE or self.close_initiator is None:
                self.close_initiator, self.close_code = "client", None
            return CLEAN
        if event is _SEND and self.state.app in FINISHED:
            return CLEAN  # overtaken by the application's own close
        return _FAILED.get(event, _SEND_FAILED)

    def receive_called(self, in_flight: int) -> Findings:
        """Follow a call of ``receive``, made while ``in_flight`` earlier ones were waiting."""
        findings = _MOVES[self.state][Event.RECEIVE_CALL][1]
        return findings + _CONCURRENT if in_flight > 0 else findings

    def received(self, message: object) -> Findings:
        """Follow an event that ``receive`` returned."""
        event, findings, detail = read(message, self._scope, RECEIVED)
        if event is None:
            return findings
        before = self.state
        self.state, misplaced = _MOVES[before][event]
        if self.state is before and misplaced:
            if event is _CONNECT:
                self._repeated_connects += 1
            return misplaced
        if event is _DISCONNECT and self.close_initiator != "app":
            self.close_initiator, self.close_code = "client", detail
        return misplaced + findings

    def receive_failed(self, exc: BaseException, *, here: bool = True) -> Findings:
        """Follow a ``receive`` that raised: no rule forbids it, and it is not the application's.

        Unless that called it from another thread than the one that serves: ``here`` says.
        """
        if isinstance(exc, Exception) and (here or _means_departure(exc)):
            self._remember(exc)
        return CLEAN

    def returned(self, receives_pending: int = 0) -> Findings:
        """Follow the return of the application."""
        return self._end(Event.RETURN, receives_pending)

    def raised(self, exc: BaseException, receives_pending: int = 0) -> Findings:
        """Follow an exception out of the application, and blame it unless it is the server's."""
        event = Event.CANCEL if self._is_excused(exc) else Event.RAISE  # a cancel blames nobody
        return self._end(event, receives_pending)

    def cancelled(self) -> Findings:
        """Follow the cancellation of the application."""
        return self._end(Event.CANCEL, 0)

    def _end(self, event: Event, receives_pending: int) -> Findings:
        self._server_errors = ()  # their tracebacks lead back to this conversation
        findings = _MOVES[self.state][event][1]
        return findings + _RETURN_PENDING if receives_pending > 0 else findings

    def _remember(self, exc: BaseException) -> None:
        self._server_errors = (*self._server_errors[1 - _MAX_REMEMBERED :], exc)

    def _is_excused(self, exc: BaseException) -> bool:
        if any(exc is error for error in self._server_errors):
            return True
        if isinstance(exc, BaseExceptionGroup):
            return all(map(self._is_excused, exc.exceptions))
        if not isinstance(exc, Exception):
            return True  # cancelled, or the process is told to stop
        return self.state.server in GONE and _means_departure(exc)


def _means_departure(exc: BaseException) -> bool:
    """Tell if an exception says that the client is gone; servers share no class, only a word."""
    name = type(exc).__name__.lower()
    if isinstance(exc, OSError) or "disconnect" in name or "connectionclosed" in name:
        return True
    # What uvloop says of a closed transport, and gunicorn's accept lets through; asyncio says none.
    return type(exc) is RuntimeError and str(exc).endswith("; the handler is closed")
