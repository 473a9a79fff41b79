"""Whole conversations: each rule is broken at least once, and what is legal stays silent.

A conversation is a list of steps; the rules named are all that it breaks, in order.
"""

from __future__ import annotations

import asyncio
import socket
from asyncio import CancelledError
from collections.abc import Callable
from typing import Any, TypeAlias

import pytest

from ws_lifecycle_metrics.protocol import RULES, Findings, Lifecycle, Severity

Step: TypeAlias = Callable[[Lifecycle], Findings]
OFFERED = "graphql-transport-ws"
SCOPE: dict[str, Any] = {
    "type": "websocket",
    "asgi": {"version": "3.0"},
    "path": "/",
    "headers": [(b"host", b"example.org")],
    "subprotocols": [OFFERED],
    "extensions": {"websocket.http.response": {}, "example.event": {}},
}


class ClientDisconnected(OSError):  # noqa: N818  the name is uvicorn's
    """What uvicorn raises."""


class WebSocketDisconnected(Exception):  # noqa: N818  the name is gunicorn's
    """What gunicorn raises: no OSError, but it tells by its name."""


def sends(kind: str, *, pending: int = 0, **fields: Any) -> Step:
    return lambda life: life.sent({"type": f"websocket.{kind}", **fields}, receives_pending=pending)


def gets(kind: str, **fields: Any) -> Step:
    return lambda life: life.received({"type": f"websocket.{kind}", **fields})


def fails(kind: str, exc: BaseException, **fields: Any) -> Step:
    """Send, and have the server raise, as the middleware reports it."""

    def step(life: Lifecycle) -> Findings:
        message = {"type": f"websocket.{kind}", **fields}
        findings = life.sent(message)
        legal = all(rule.severity is Severity.INFO for rule in findings)
        return findings + life.send_failed(message, exc, legal)

    return step


def asks(in_flight: int = 0) -> Step:
    return lambda life: life.receive_called(in_flight)


def receive_fails(exc: BaseException) -> Step:
    return lambda life: life.receive_failed(exc)


def returns(pending: int = 0) -> Step:
    return lambda life: life.returned(pending)


def raises(exc: BaseException, pending: int = 0) -> Step:
    return lambda life: life.raised(exc, pending)


def opens(life: Lifecycle) -> Findings:
    return life.opened()


def is_cancelled(life: Lifecycle) -> Findings:
    return life.cancelled()


CONNECT, ACCEPT, CLOSE = gets("connect"), sends("accept"), sends("close")
TEXT, SEND, DISCONNECT = (
    gets("receive", text="?"),
    sends("send", text="!"),
    gets("disconnect", code=1000),
)
DENY, BODY = sends("http.response.start", status=403), sends("http.response.body")
MORE = sends("http.response.body", more_body=True)
OPENED = (CONNECT, ACCEPT)
IN_FLIGHT = {"type": "websocket.send", "text": "!"}
SERVER_FAULT = RuntimeError("ASGI flow error")
GONE = ClientDisconnected()
GONE_BY_NAME = WebSocketDisconnected()


def breaks(case: str, rules: str, *steps: Step, scope: dict[str, Any] = SCOPE) -> Any:
    return pytest.param(rules.split(), scope, steps, id=case)


def silent(case: str, *steps: Step) -> Any:
    return breaks(case, "", *steps)


# A case is read as a sentence, not as one word a line.
# fmt: off

BROKEN = [
    # The order of what the application sends.
    breaks("send before accept", "app.send-before-accept", CONNECT, SEND),
    breaks("send before anything", "app.send-before-accept", SEND),
    breaks("accept twice", "app.accept-twice", *OPENED, ACCEPT),
    breaks("accept after reject", "app.accept-after-close", CONNECT, CLOSE, ACCEPT),
    breaks("accept after close", "app.accept-after-close", *OPENED, CLOSE, ACCEPT),
    breaks("accept after denial", "app.accept-after-close", CONNECT, DENY, BODY, ACCEPT),
    breaks("accept before connect", "app.accept-before-connect", ACCEPT, CONNECT, SEND),
    breaks("send after close", "app.send-after-close", *OPENED, CLOSE, SEND),
    breaks("send after reject", "app.send-after-close", CONNECT, CLOSE, SEND),
    breaks("send after close and disconnect", "app.send-after-close",
           *OPENED, CLOSE, DISCONNECT, SEND),
    breaks("close twice", "app.close-twice", *OPENED, CLOSE, CLOSE),
    breaks("reject twice", "app.close-twice", CONNECT, CLOSE, CLOSE),
    breaks("close after denial", "app.close-twice", CONNECT, DENY, BODY, CLOSE),
    breaks("send after disconnect", "app.send-after-disconnect", *OPENED, DISCONNECT, SEND),
    breaks("send after a lost send", "app.send-after-disconnect",
           *OPENED, fails("send", GONE, text=""), SEND),
    breaks("accept after disconnect", "app.send-after-disconnect", CONNECT, DISCONNECT, ACCEPT),
    breaks("second accept after disconnect", "app.send-after-disconnect",
           *OPENED, DISCONNECT, ACCEPT),
    breaks("denial after disconnect", "app.send-after-disconnect " * 2,
           CONNECT, DISCONNECT, DENY, BODY),
    breaks("close after disconnect", "app.close-after-disconnect", *OPENED, DISCONNECT, CLOSE),
    breaks("reject after disconnect", "app.close-after-disconnect", CONNECT, DISCONNECT, CLOSE),
    breaks("close with a receive pending", "app.close-with-receive-pending",
           *OPENED, asks(), sends("close", pending=1)),
    # What an event is.
    breaks("an event of HTTP", "app.unknown-event",
           CONNECT, lambda life: life.sent({"type": "http.response.start", "status": 200})),
    breaks("an event of the server's", "app.unknown-event", CONNECT, sends("receive", text="")),
    breaks("a name of the table that is none of the wire's", "app.unknown-event",
           CONNECT, lambda life: life.sent({"type": "return"})),
    breaks("a list as event", "app.malformed-event", CONNECT, lambda life: life.sent([])),
    breaks("no type", "app.malformed-event", CONNECT, lambda life: life.sent({"text": ""})),
    # One message's fields.
    breaks("no payload", "app.send-no-payload", *OPENED, sends("send")),
    breaks("both payloads", "app.send-both-payloads", *OPENED, sends("send", text="", bytes=b"")),
    breaks("bytes as text", "app.send-wrong-type", *OPENED, sends("send", text=b"")),
    breaks("a refused bytearray", "app.send-wrong-type",
           *OPENED, fails("send", TypeError(), bytes=bytearray())),
    breaks("a refused surrogate", "app.send-wrong-type",
           *OPENED, fails("send", UnicodeEncodeError("utf-8", "\ud800", 0, 1, ""), text="\ud800")),
    breaks("close code 1005", "app.close-code-invalid", *OPENED, sends("close", code=1005)),
    breaks("a reason of 124 bytes", "app.close-reason-invalid",
           *OPENED, sends("close", reason="é" * 62)),
    breaks("a subprotocol of its own", "app.subprotocol-not-offered",
           CONNECT, sends("accept", subprotocol="chat")),
    breaks("an accept header in upper case", "app.accept-headers-invalid",
           CONNECT, sends("accept", headers=[(b"X-A", b"")])),
    # Denial.
    breaks("a denial without the extension", "app.denial-unsupported app.denial-unsupported",
           CONNECT, DENY, BODY, CLOSE, scope=SCOPE | {"extensions": {}}),
    breaks("body before start", "app.denial-out-of-order", CONNECT, BODY),
    breaks("start twice", "app.denial-out-of-order", CONNECT, DENY, DENY),
    breaks("body after the last body", "app.denial-out-of-order", CONNECT, DENY, BODY, BODY),
    breaks("close within a denial", "app.denial-out-of-order", CONNECT, DENY, CLOSE),
    breaks("accept within a denial", "app.denial-out-of-order", CONNECT, DENY, ACCEPT),
    breaks("send within a denial", "app.denial-out-of-order", CONNECT, DENY, MORE, SEND),
    breaks("denial after accept", "app.denial-out-of-order", *OPENED, DENY),
    breaks("denial after reject", "app.denial-out-of-order", CONNECT, CLOSE, DENY),
    breaks("denial with status 101", "app.denial-invalid",
           CONNECT, sends("http.response.start", status=101)),
    breaks("denial with text as body", "app.denial-invalid",
           CONNECT, DENY, sends("http.response.body", body="no")),
    breaks("return within a denial", "app.denial-incomplete", CONNECT, DENY, MORE, returns()),
    # How the application ends.
    breaks("return before the handshake", "app.return-before-handshake", CONNECT, returns()),
    breaks("return at once", "app.return-before-handshake", returns()),
    breaks("return without close", "app.return-without-close", *OPENED, SEND, returns()),
    breaks("exception while open", "app.exception", *OPENED, raises(ValueError())),
    breaks("exception before the handshake", "app.exception", CONNECT, raises(ValueError())),
    breaks("another exception after disconnect", "app.exception",
           *OPENED, DISCONNECT, raises(ValueError())),
    breaks("OSError of its own while open", "app.exception", *OPENED, raises(ConnectionError())),
    breaks("the server's anger at an illegal send", "app.send-before-accept app.exception",
           CONNECT, fails("send", SERVER_FAULT, text=""), raises(SERVER_FAULT)),
    breaks("a group with one exception of its own", "app.exception",
           *OPENED, DISCONNECT,
           raises(ExceptionGroup("", [GONE, ExceptionGroup("", [ValueError()])]))),
    breaks("receive after disconnect", "app.receive-after-disconnect", *OPENED, DISCONNECT, asks()),
    breaks("two receives", "app.receive-concurrent", *OPENED, asks(), asks(in_flight=1)),
    breaks("return with a receive pending", "app.receive-pending-at-return",
           *OPENED, CLOSE, returns(pending=1)),
    breaks("raise with a receive pending", "app.exception app.receive-pending-at-return",
           *OPENED, raises(ValueError(), pending=1)),
    # What the server delivers.
    breaks("messages without a connect, said once",
           "app.accept-before-connect server.first-event-not-connect",
           ACCEPT, TEXT, TEXT, SEND, DISCONNECT, returns()),
    breaks("disconnect first", "server.first-event-not-connect", DISCONNECT, returns()),
    breaks("duplicate connect", "server.duplicate-connect", CONNECT, CONNECT),
    breaks("duplicate connect after accept", "server.duplicate-connect", *OPENED, CONNECT, SEND),
    breaks("message before accept", "server.receive-before-accept", CONNECT, TEXT),
    breaks("message after reject", "server.receive-before-accept", CONNECT, CLOSE, TEXT),
    breaks("message after disconnect", "server.event-after-disconnect", *OPENED, DISCONNECT, TEXT),
    breaks("connect after disconnect", "server.event-after-disconnect",
           *OPENED, DISCONNECT, CONNECT),
    breaks("disconnect twice", "server.duplicate-disconnect", *OPENED, DISCONNECT, DISCONNECT),
    breaks("an event of the application's", "server.unknown-event", *OPENED, gets("send", text="")),
    breaks("None as event", "server.malformed-event", *OPENED, lambda life: life.received(None)),
    breaks("empty message", "server.receive-no-payload", *OPENED, gets("receive", text=None)),
    breaks("doubled message", "server.receive-both-payloads",
           *OPENED, gets("receive", text="", bytes=b"")),
    breaks("bytearray delivered", "server.receive-wrong-type",
           *OPENED, gets("receive", bytes=bytearray())),
    breaks("disconnect without code", "server.disconnect-code-missing",
           *OPENED, gets("disconnect"), returns()),
    breaks("disconnect with a str", "server.disconnect-code-invalid",
           *OPENED, gets("disconnect", code="1000"), returns()),
    breaks("disconnect with 0", "server.disconnect-code-invalid",
           *OPENED, gets("disconnect", code=0), returns()),
    breaks("scope without path", "server.scope-invalid",
           opens, CONNECT, scope={"type": "websocket", "asgi": {}, "headers": []}),
    # How the server's calls end.
    breaks("accept raised, the application returned", "server.accept-failed",
           CONNECT, fails("accept", SERVER_FAULT), returns()),
    breaks("accept raised through the application", "server.accept-failed",
           CONNECT, fails("accept", SERVER_FAULT), raises(SERVER_FAULT)),
    breaks("send raised", "server.send-failed",
           *OPENED, fails("send", SERVER_FAULT, text=""), raises(SERVER_FAULT)),
    breaks("denial raised", "server.send-failed",
           CONNECT, fails("http.response.start", SERVER_FAULT, status=403), raises(SERVER_FAULT)),
    breaks("close raised", "server.close-failed",
           *OPENED, fails("close", SERVER_FAULT), raises(SERVER_FAULT)),
    breaks("two sends raised, in one group", "server.send-failed server.send-failed",
           *OPENED, fails("send", SERVER_FAULT, text=""),
           fails("send", other := KeyError(), text=""),
           raises(ExceptionGroup("", [SERVER_FAULT, other]))),
    breaks("send raised, in a group of cancellations", "server.send-failed",
           *OPENED, fails("send", SERVER_FAULT, text=""),
           raises(BaseExceptionGroup("", [CancelledError(), SERVER_FAULT]))),
    breaks("RuntimeError from a send after disconnect",
           "app.send-after-disconnect server.send-raised-non-oserror",
           *OPENED, DISCONNECT, fails("send", SERVER_FAULT, text=""), raises(SERVER_FAULT)),
    # The story: the second connect makes the application accept again, which is not its fault.
    breaks("duplicate connect, and the flow error that follows",
           "server.duplicate-connect server.accept-failed",
           CONNECT, asks(), ACCEPT, CONNECT, fails("accept", SERVER_FAULT), raises(SERVER_FAULT)),
    breaks("one duplicate connect excuses one accept", "server.duplicate-connect app.accept-twice",
           *OPENED, CONNECT, ACCEPT, ACCEPT),
]

SILENT = [
    silent("receive before accept", asks(), CONNECT, asks(in_flight=0), ACCEPT),
    silent("own close, then disconnect", *OPENED, CLOSE, asks(), DISCONNECT, returns()),
    silent("own reject, then disconnect", CONNECT, CLOSE, DISCONNECT, returns()),
    silent("return after own close", *OPENED, CLOSE, returns()),
    silent("return after reject", CONNECT, CLOSE, returns()),
    silent("reject without reading connect", CLOSE, returns()),
    silent("return after disconnect", *OPENED, TEXT, SEND, DISCONNECT, returns()),
    silent("client gone during the handshake", CONNECT, DISCONNECT, returns()),
    silent("client gone during a denial", CONNECT, DENY, MORE, DISCONNECT, returns()),
    silent("messages still delivered after own close", *OPENED, CLOSE, TEXT, DISCONNECT),
    silent("several sends", *OPENED, SEND, SEND, SEND),
    silent("close without a code", *OPENED, sends("close"), returns()),
    silent("extra keys", gets("connect", a=1), sends("accept", a=1), sends("send", text="", a=1),
           gets("receive", text="", a=1), gets("disconnect", code=1000, reason="", a=1), returns()),
    silent("a null beside the payload", *OPENED, gets("receive", bytes=None, text=""),
           sends("send", bytes=b"", text=None)),
    silent("bytes by another name", *OPENED, sends("send", bytes=bytearray(b"")),
           sends("send", bytes=memoryview(b""))),
    silent("denial", CONNECT, DENY, MORE, BODY, returns()),
    silent("events of an announced extension", *OPENED, CLOSE,
           lambda life: life.sent({"type": "example.event"}),
           lambda life: life.received({"type": "example.event.again"})),
    silent("OSError from a send, and return", *OPENED, fails("send", GONE, text=""), returns()),
    silent("OSError from a send, through the application", *OPENED, fails("send", GONE, text=""),
           raises(GONE)),
    silent("a disconnect error by its name", *OPENED, fails("send", GONE_BY_NAME, text=""),
           raises(GONE_BY_NAME)),
    silent("OSError from a bytearray", *OPENED, fails("send", GONE, bytes=bytearray()), returns()),
    silent("OSError from the accept", CONNECT, fails("accept", GONE), raises(GONE)),
    silent("OSError from the close", *OPENED, fails("close", GONE), returns()),
    silent("messages still delivered after a lost send", *OPENED, fails("send", GONE, text=""),
           TEXT, DISCONNECT, returns()),
    silent("the framework's disconnect error after disconnect", *OPENED, DISCONNECT,
           raises(WebSocketDisconnected())),
    silent("groups of disconnect errors", *OPENED, DISCONNECT,
           raises(ExceptionGroup("", [GONE, ExceptionGroup("", [WebSocketDisconnected()])]))),
    silent("what the server's receive raised", *OPENED, CLOSE, asks(), receive_fails(SERVER_FAULT),
           raises(SERVER_FAULT)),
    silent("a cancelled send", *OPENED, fails("send", CancelledError(), text=""), CLOSE),
    silent("a send overtaken by the own close", *OPENED, SEND, CLOSE,
           lambda life: life.send_failed(IN_FLIGHT, SERVER_FAULT, True), raises(SERVER_FAULT)),
    silent("a send overtaken by the own close and its disconnect", *OPENED, SEND, CLOSE, DISCONNECT,
           lambda life: life.send_failed(IN_FLIGHT, SERVER_FAULT, True), returns()),
    silent("cancelled at shutdown while open", *OPENED, asks(), is_cancelled),
    silent("cancelled before the handshake", CONNECT, is_cancelled),
    silent("told to stop", *OPENED, raises(KeyboardInterrupt())),
]
# fmt: on


def play(scope: dict[str, Any], steps: tuple[Step, ...]) -> list[str]:
    life = Lifecycle(scope)
    return [rule.id for step in steps for rule in step(life)]


@pytest.mark.parametrize(("rules", "scope", "steps"), BROKEN)
def test_broken(rules: list[str], scope: dict[str, Any], steps: tuple[Step, ...]) -> None:
    assert play(scope, steps) == rules


@pytest.mark.parametrize(("rules", "scope", "steps"), SILENT)
def test_never_flagged(rules: list[str], scope: dict[str, Any], steps: tuple[Step, ...]) -> None:
    assert play(scope, (opens, *steps)) == rules == []


def test_every_rule_is_broken_by_some_conversation() -> None:
    broken = {rule for case in BROKEN for rule in case.values[0]}
    assert set(RULES) - broken == set()


def test_that_uvloop_writes_to_no_closed_transport_is_the_clients_departure() -> None:
    """gunicorn's accept does, where the client gives up the handshake; asyncio takes it."""
    loop = pytest.importorskip("uvloop").new_event_loop()
    ours, theirs = socket.socketpair()
    with theirs:
        transport, _ = loop.run_until_complete(loop.create_connection(asyncio.Protocol, sock=ours))
        transport.abort()
        loop.run_until_complete(asyncio.sleep(0))
        with pytest.raises(RuntimeError) as refused:
            transport.write(b"!")
        loop.close()
    steps = CONNECT, fails("accept", refused.value), raises(refused.value)
    assert play(SCOPE, steps) == []
