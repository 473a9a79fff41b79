"""Record a conversation event by event, with the rules that each event broke; no payloads."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from threading import get_ident
from typing import Any

from ..labels import safe_label
from ..protocol import Findings, Lifecycle, Severity

ASGIApp = Callable[[Any, Any, Any], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that happened. `at` is in seconds of the monotonic clock.

    `what` is "scope", "receive", "received", "send", "sent", "… raised", "returned", "raised"
    or "cancelled"; `event` the ASGI type; `detail` sizes, codes and exception names.
    """

    at: float
    what: str
    event: str = ""
    detail: Mapping[str, object] = field(default_factory=dict)
    findings: Findings = ()


Tell = Callable[[Entry], object]


class Watch:
    """Follows one conversation as it is told what happens, and tells it on with the findings."""

    def __init__(self, scope: Any, tell: Tell) -> None:
        self.lifecycle = Lifecycle(scope)
        self._pending = 0
        self._tell = tell
        self._thread = get_ident()
        self._note("scope", findings=self.lifecycle.opened())

    def _note(
        self, what: str, message: Any = None, findings: Findings = (), **detail: object
    ) -> Findings:
        event, described = describe(message)
        entry = Entry(time.monotonic(), what, event, {**described, **detail}, findings)
        self._tell(entry)
        return findings

    def _is_here(self) -> bool:
        return get_ident() == self._thread

    def receive_called(self) -> Findings:
        """A receive() begins."""
        findings = self.lifecycle.receive_called(self._pending)
        self._pending += 1
        return self._note("receive", findings=findings)

    def received(self, message: Any) -> Findings:
        """A receive() returned `message`."""
        self._pending -= 1
        return self._note("received", message, self.lifecycle.received(message))

    def receive_raised(self, error: BaseException) -> Findings:
        """A receive() raised, or was cancelled."""
        self._pending -= 1
        findings = self.lifecycle.receive_failed(error, here=self._is_here())
        return self._note("receive raised", findings=findings, error=type(error).__name__)

    def send_called(self, message: Any) -> Findings:
        """A send() begins."""
        findings = self.lifecycle.sent(message, receives_pending=self._pending)
        return self._note("send", message, findings)

    def sent(self, message: Any) -> Findings:
        """A send() returned."""
        return self._note("sent", message)

    def send_raised(self, message: Any, error: BaseException, findings: Findings) -> Findings:
        """A send() raised; `findings` are those of its beginning."""
        legal = all(rule.severity is Severity.INFO for rule in findings)
        found = self.lifecycle.send_failed(message, error, legal, here=self._is_here())
        return self._note("send raised", message, found, error=type(error).__name__)

    def ended(self, error: BaseException | None = None) -> Findings:
        """The application returned, raised or was cancelled."""
        if error is None:
            return self._note("returned", findings=self.lifecycle.returned(self._pending))
        if not isinstance(error, (Exception, BaseExceptionGroup, SystemExit)):
            # Whatever else there is comes from outside, such as trio's own cancellation.
            return self._note("cancelled", findings=self.lifecycle.cancelled())
        # The lifecycle forgives what tells a process to stop, and sys.exit() looks like that.
        blamed = Exception() if isinstance(error, SystemExit) else error
        found = self.lifecycle.raised(blamed, self._pending)
        return self._note("raised", findings=found, error=type(error).__name__)


class Recorder:
    """An ASGI middleware that tells each event of each WebSocket, and changes nothing.

    `watch` is called with the scope of each conversation and returns who is told of it.
    """

    def __init__(self, app: ASGIApp, watch: Callable[[Any], Tell]) -> None:
        self.app = app
        self._watch = watch

    async def __call__(self, scope: Any, receive: Any, send: Any) -> Any:
        """Serve one scope; returns what the application returns."""
        if scope["type"] != "websocket":
            return await self.app(scope, receive, send)
        watch = Watch(scope, self._watch(scope))
        receive, send = _watched(watch, receive, send)
        try:
            result = await self.app(scope, receive, send)
        except BaseException as error:
            watch.ended(error)
            raise
        watch.ended()
        return result


def _watched(watch: Watch, receive: Any, send: Any) -> tuple[Any, Any]:
    async def watched_receive() -> Any:
        watch.receive_called()
        try:
            message = await receive()
        except BaseException as error:
            watch.receive_raised(error)
            raise
        watch.received(message)
        return message

    async def watched_send(message: Any) -> Any:
        findings = watch.send_called(message)
        try:
            result = await send(message)
        except BaseException as error:
            watch.send_raised(message, error, findings)
            raise
        watch.sent(message)
        return result

    return watched_receive, watched_send


def describe(message: Any) -> tuple[str, dict[str, object]]:
    """Return the type of an event and what may be shown of it: sizes and codes, no contents."""
    if not isinstance(message, dict):
        return ("" if message is None else safe_label(type(message).__name__)), {}
    detail: dict[str, object] = {
        key: len(message[key]) for key in _SIZED if isinstance(message.get(key), (str, bytes))
    }
    for key in ("code", "status", "subprotocol"):
        if message.get(key) is not None:
            value = message[key]
            detail[key] = value if type(value) is int else safe_label(str(value))
    return safe_label(message.get("type")), detail


_SIZED = ("text", "bytes", "body", "reason")
