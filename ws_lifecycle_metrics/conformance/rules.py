"""What a server can break that no middleware sees: on the wire, by silence, by its end.

The rules that a middleware sees are the protocol's own (`protocol/rules.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from ..protocol import Party, Rule, Severity

ERROR, WARNING = Severity.ERROR, Severity.WARNING


def _server(name: str, meaning: str, spec: str, severity: Severity = ERROR) -> Rule:
    hint = "report it to the server's authors, or serve the application by another server"
    return Rule(f"server.{name}", Party.SERVER, severity, meaning, spec, hint)


def _app(name: str, meaning: str, spec: str, hint: str) -> Rule:
    return Rule(f"app.{name}", Party.APP, ERROR, meaning, spec, hint)


_DISCONNECT = "ASGI WebSocket, Disconnect: "
_CLOSE = "ASGI WebSocket, Close: "
_ERRORS = "ASGI, Error Handling: "

_RULES: Final = (
    _server(
        "disconnect-not-delivered",
        "the connection is over and a receive() in flight never gets its disconnect",
        _DISCONNECT + "it is sent when either side closes or the socket is lost",
    ),
    _server(
        "send-never-returns",
        "a send() does not return although the connection is over",
        "ASGI, Applications: send returns when the data is sent or the connection is closed",
    ),
    _server(
        "receive-raised",
        "a legal receive() raised",
        "ASGI, Applications: receive returns the next event",
    ),
    _server(
        "handshake-unanswered",
        "the client's handshake got no answer",
        "ASGI WebSocket, Connect: the handshake ends by the application's answer, or its end",
    ),
    _server(
        "handshake-failed",
        "the application accepted and the client's handshake failed",
        "ASGI WebSocket, Accept: it completes the handshake",
    ),
    _server(
        "status-wrong",
        "a refused handshake was answered by another status",
        _CLOSE + "a reject is a 403; a denial response has its own status",
    ),
    _server(
        "socket-left-open",
        "the application has ended or closed, and the client's socket stays open",
        "ASGI WebSocket, Connection Scope: when the application is gone the socket is closed",
    ),
    _server(
        "close-missing",
        "the application closed, and the client's connection ended without a close frame",
        _CLOSE + "the socket is closed with the given code",
    ),
    _server(
        "close-code-wrong",
        "the client got another close code than the one that the application sent",
        _CLOSE + "the code is the given one, or 1000",
    ),
    _server(
        "close-reason-wrong",
        "the client got another close reason than the one that the application sent",
        _CLOSE + "the reason is the given one (since 2.3)",
        WARNING,
    ),
    _server(
        "disconnect-code-wrong",
        "the disconnect carries another code than the client's close frame",
        _DISCONNECT + "the code is that of the close frame, 1005 if it had none",
    ),
    _server(
        "illegal-frame",
        "the client got a frame that RFC 6455 forbids",
        "RFC 6455 5.5, 7.4 and 8.1: control frames of 125 bytes at most, codes, UTF-8",
    ),
    _server(
        "header-injected",
        "a control character of the application's stands in the handshake's answer",
        "RFC 9110 5.5: a field value holds no CR, LF or NUL",
    ),
    _server(
        "client-error-tolerated",
        "a frame of the client's that RFC 6455 forbids did not end the connection",
        "RFC 6455 5.1, 5.2, 5.5 and 8.1: the connection is failed",
    ),
    _server(
        "invalid-event-accepted",
        "an invalid event of the application's did not raise",
        _ERRORS + "an unknown type, a missing key or a wrong type raises out of send",
    ),
    _server(
        "message-lost",
        "a message did not arrive, or not as it was sent, or out of order",
        "ASGI WebSocket, Send and Receive: whole messages, in order",
    ),
    _server(
        "pong-missing",
        "a ping got no pong",
        "ASGI WebSocket: the server answers pings; RFC 6455 5.5.2: as soon as is practical",
    ),
    _server(
        "scope-wrong",
        "a key of the scope has not the value of the handshake",
        "ASGI WebSocket, Connection Scope: path decoded, query raw, headers in order",
    ),
    _server(
        "unbounded-send-buffer",
        "send() returns at once for megabytes that nobody reads",
        "ASGI, Applications: send returns when the data is sent",
        WARNING,
    ),
    _server(
        "loss-not-reported",
        "sends to a client that is gone succeed for ever",
        "ASGI WebSocket, Disconnected Client: a send should raise an OSError (since 2.4)",
        WARNING,
    ),
    _server(
        "worker-frozen",
        "after the scenario the server answers nobody",
        "ASGI, Connection Scope: connections are independent of each other",
    ),
    _server(
        "worker-died",
        "the server's process ended",
        _ERRORS + "an application's error ends its own connection",
    ),
    _server(
        "shutdown-hangs",
        "the server did not exit in time after SIGTERM",
        "ASGI Lifespan, Shutdown: the server stops accepting, closes and shuts down",
    ),
    _app(
        "handshake-unanswered",
        "the application neither accepts nor rejects in time",
        "ASGI WebSocket, Connect: the event is answered by an accept or a close",
        "answer before any slow work, or reject",
    ),
    _app(
        "never-ends",
        "the client is gone, and the application goes on in code of its own",
        "ASGI WebSocket, Connection Scope: the scope lives as long as the socket",
        "end at the disconnect; cancel what waits for something else",
    ),
)

WIRE_RULES: Final[Mapping[str, Rule]] = MappingProxyType({rule.id: rule for rule in _RULES})

HANGS: Final = frozenset(
    {
        "server.disconnect-not-delivered",
        "server.send-never-returns",
        "server.handshake-unanswered",
        "server.socket-left-open",
        "server.worker-frozen",
        "server.shutdown-hangs",
        "app.handshake-unanswered",
        "app.never-ends",
    }
)
"""Those by which somebody waits for ever."""
