"""Every rule that a middleware can see broken, and by which party.

An order rule claims the cells of the table that no legal move claims; a field rule judges the
content of one event and claims none. The ids are stable: dashboards and alerts name them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final, TypeAlias

from .table import (
    ACCEPTED,
    ANY_APP,
    ANY_SERVER,
    CONNECTED,
    DENYING,
    DISCONNECTED,
    FINISHED,
    GONE,
    LOST,
    NEW,
    PRESENT,
    REJECTED,
    UNANSWERED,
    UNFINISHED,
    Claim,
    Event,
)


class Party(StrEnum):
    """Who broke a rule."""

    APP = "app"
    SERVER = "server"


class Severity(StrEnum):
    """How much a violation matters."""

    ERROR = "error"  # the specification says must, or one side will break
    WARNING = "warning"  # it says should, or some servers are known to break
    INFO = "info"  # legal, and worth counting


@dataclass(frozen=True, slots=True, eq=False)
class Rule:
    """One rule: what was broken, by whom, where that is written, and what to do about it."""

    id: str
    party: Party
    severity: Severity
    meaning: str
    spec: str  # document, section: what it asks for, in our words
    hint: str
    claims: tuple[Claim, ...] = ()


Findings: TypeAlias = tuple[Rule, ...]

APP, SERVER = Party
ERROR, WARNING, INFO = Severity

_DENIAL: Final = (Event.DENIAL_START, Event.DENIAL_BODY, Event.DENIAL_END)

_APP_RULES: Final = (
    Rule(
        "app.send-before-accept",
        APP,
        ERROR,
        meaning="a message was sent before the connection was accepted",
        spec="ASGI WebSocket, Connect: only accept, close or a denial response answers a connect",
        hint="await the accept before the first send, also in background tasks",
        claims=(Claim(Event.SEND, (UNANSWERED,), PRESENT),),
    ),
    Rule(
        "app.accept-twice",
        APP,
        ERROR,
        meaning="the connection was accepted a second time",
        spec="ASGI WebSocket, Accept: it completes the handshake, and there is one handshake",
        hint="let one place accept: the framework, a dependency or the handler",
        claims=(Claim(Event.ACCEPT, (ACCEPTED,), PRESENT),),
    ),
    Rule(
        "app.accept-after-close",
        APP,
        ERROR,
        meaning="an accept followed the application's own close or reject",
        spec="ASGI WebSocket, Close: a close before the accept ends the handshake",
        hint="return after rejecting; a permission check must stop the handler",
        claims=(Claim(Event.ACCEPT, FINISHED, ANY_SERVER),),
    ),
    Rule(
        "app.accept-before-connect",
        APP,
        INFO,
        meaning="the connection was accepted before its connect event was read",
        spec="ASGI WebSocket, Connect: the accept answers the connect event",
        hint="harmless on known servers; read one event before the accept to be exact",
        claims=(Claim(Event.ACCEPT, (UNANSWERED,), (NEW,), app=ACCEPTED),),
    ),
    Rule(
        "app.send-after-close",
        APP,
        ERROR,
        meaning="a message was sent after the application's own close or reject",
        spec="ASGI WebSocket, Close: the close is the last event that an application sends",
        hint="stop background senders before closing; policy 'shield' drops such sends",
        claims=(Claim(Event.SEND, FINISHED, ANY_SERVER),),
    ),
    Rule(
        "app.close-twice",
        APP,
        WARNING,
        meaning="the application closed or rejected twice",
        spec="ASGI WebSocket, Close: one close ends the connection; some servers raise at two",
        hint="close in one place, or remember that it was done",
        claims=(Claim(Event.CLOSE, FINISHED, ANY_SERVER),),
    ),
    Rule(
        "app.send-after-disconnect",
        APP,
        WARNING,
        meaning="something was sent although the application knew that the client is gone",
        spec="ASGI WebSocket, Disconnect: expect an OSError from a send after this event",
        hint="end the senders when a disconnect is read or a send raises",
        claims=tuple(
            Claim(event, UNFINISHED, GONE) for event in (Event.ACCEPT, Event.SEND, *_DENIAL)
        ),
    ),
    Rule(
        "app.close-after-disconnect",
        APP,
        INFO,
        meaning="the application closed a connection that it knew to be gone",
        spec="ASGI, Error Handling: what is sent after the end is a no-op",
        hint="nothing to do: frameworks do it routinely",
        claims=(Claim(Event.CLOSE, UNFINISHED, GONE),),
    ),
    Rule(
        "app.unknown-event",
        APP,
        ERROR,
        meaning="the event sent has a type that a WebSocket application may not send",
        spec="ASGI, Error Handling: a server raises on an event of an unknown type",
        hint="check the spelling, and that no HTTP response is sent on a WebSocket scope",
    ),
    Rule(
        "app.malformed-event",
        APP,
        ERROR,
        meaning="what was sent is not a dict with a str under 'type'",
        spec="ASGI, Specification Details: each event is a dict with a type as a Unicode string",
        hint="send a plain dict; some servers refuse other mappings",
    ),
    Rule(
        "app.send-no-payload",
        APP,
        ERROR,
        meaning="a message was sent with neither text nor bytes",
        spec="ASGI WebSocket, Send: one of bytes and text is not None",
        hint="send text, or bytes; an empty message is '' or b'', not None",
    ),
    Rule(
        "app.send-both-payloads",
        APP,
        ERROR,
        meaning="a message was sent with both text and bytes",
        spec="ASGI WebSocket, Send: only one of bytes and text is not None",
        hint="send two messages; servers raise or drop one of the two",
    ),
    Rule(
        "app.send-wrong-type",
        APP,
        ERROR,
        meaning="the text sent is not a str, or the bytes are not bytes-like, or were refused",
        spec="ASGI WebSocket, Send: text is a Unicode string, bytes is a byte string",
        hint="convert before sending; a server may refuse a bytearray or a lone surrogate",
    ),
    Rule(
        "app.close-code-invalid",
        APP,
        ERROR,
        meaning="the close code is not an int that may be sent",
        spec="RFC 6455 7.4: 1000 to 1003, 1007 to 1014 and 3000 to 4999 may be sent",
        hint="use 1000, 1011 or a code of your own from 4000 on; never 1005, 1006 or 1015",
    ),
    Rule(
        "app.close-reason-invalid",
        APP,
        ERROR,
        meaning="the close reason is not a str of at most 123 bytes in UTF-8",
        spec="RFC 6455 5.5: a control frame carries 125 bytes, of which the code takes two",
        hint="shorten the reason, above all where it quotes the client",
    ),
    Rule(
        "app.subprotocol-not-offered",
        APP,
        ERROR,
        meaning="the accepted subprotocol is not one that the client offered",
        spec="RFC 6455 4.2.2: the server picks one of the client's subprotocols, or none",
        hint="choose from scope['subprotocols']; browsers fail the connection otherwise",
    ),
    Rule(
        "app.accept-headers-invalid",
        APP,
        ERROR,
        meaning="a header or the subprotocol of the accept is malformed or reserved",
        spec="ASGI WebSocket, Accept: pairs of bytes, names in lower case, no pseudo header,"
        " no sec-websocket-protocol",
        hint="send (b'name', b'value') pairs and pass the subprotocol in its own key",
    ),
    Rule(
        "app.denial-unsupported",
        APP,
        ERROR,
        meaning="a denial response was sent to a server that does not offer the extension",
        spec="ASGI Extensions, WebSocket Denial Response: only if the scope announces it",
        hint="send websocket.close unless 'websocket.http.response' is in scope['extensions']",
    ),
    Rule(
        "app.denial-out-of-order",
        APP,
        ERROR,
        meaning="a denial response was not one start, then bodies, and nothing else",
        spec="ASGI Extensions, WebSocket Denial Response: no other message may follow it",
        hint="deny before any accept or close, and return when the last body is sent",
        claims=(
            Claim(Event.ACCEPT, (DENYING,), PRESENT),
            Claim(Event.SEND, (DENYING,), PRESENT),
            Claim(Event.CLOSE, (DENYING,), PRESENT),
            Claim(Event.DENIAL_START, (ACCEPTED, DENYING), PRESENT),
            Claim(Event.DENIAL_BODY, (UNANSWERED, ACCEPTED), PRESENT),
            Claim(Event.DENIAL_END, (UNANSWERED, ACCEPTED), PRESENT),
            *(Claim(event, FINISHED, ANY_SERVER) for event in _DENIAL),
        ),
    ),
    Rule(
        "app.denial-invalid",
        APP,
        ERROR,
        meaning="the status, a header or the body of the denial response is malformed",
        spec="ASGI HTTP, Response Start and Response Body: status int, headers and body bytes",
        hint="use a status of 200 to 599, lower-case names and bytes",
    ),
    Rule(
        "app.denial-incomplete",
        APP,
        ERROR,
        meaning="the application ended before the last body of its denial response",
        spec="ASGI HTTP, Response Body: the response is complete when more_body is false",
        hint="finish with a body whose more_body is false or absent",
        claims=(Claim(Event.RETURN, (DENYING,), PRESENT),),
    ),
    Rule(
        "app.return-before-handshake",
        APP,
        ERROR,
        meaning="the application returned without accepting or rejecting the connection",
        spec="ASGI WebSocket, Connect: the event is answered by an accept or a close",
        hint="answer on every path; servers send 500 or 403, or leave the client waiting",
        claims=(Claim(Event.RETURN, (UNANSWERED,), PRESENT),),
    ),
    Rule(
        "app.return-without-close",
        APP,
        WARNING,
        meaning="the application returned with the connection open",
        spec="ASGI WebSocket, Connection Scope: the scope lives as long as the socket",
        hint="send websocket.close before returning; servers differ, daphne keeps it open",
        claims=(Claim(Event.RETURN, (ACCEPTED,), PRESENT),),
    ),
    Rule(
        "app.exception",
        APP,
        ERROR,
        meaning="an exception left the application",
        spec="ASGI, Error Handling: the server ends the application and its connection",
        hint="catch it, and close with 1011 or a code of your own",
        claims=(Claim(Event.RAISE, ANY_APP, ANY_SERVER),),
    ),
    Rule(
        "app.receive-after-disconnect",
        APP,
        WARNING,
        meaning="receive() was called after the disconnect was delivered",
        spec="ASGI WebSocket, Disconnect: the last event; what follows is not specified",
        hint="leave the loop at the disconnect: servers repeat it, raise, or never answer",
        claims=(Claim(Event.RECEIVE_CALL, ANY_APP, (DISCONNECTED,)),),
    ),
    Rule(
        "app.receive-concurrent",
        APP,
        WARNING,
        meaning="receive() was called while another call was in flight",
        spec="ASGI, Applications: a call waits for one event; sharing them is not specified",
        hint="read in one task and hand the events on",
    ),
    Rule(
        "app.receive-pending-at-return",
        APP,
        WARNING,
        meaning="the application ended with a receive() in flight",
        spec="ASGI, Applications: receive serves a running application",
        hint="cancel the reader and wait for it; this freezes Granian before 2.7.9",
    ),
    Rule(
        "app.close-with-receive-pending",
        APP,
        INFO,
        meaning="the application closed while a receive() was in flight",
        spec="ASGI WebSocket, Close: legal; the pending call is due a disconnect",
        hint="nothing to do, unless the close never returns (Granian to date)",
    ),
)

_SERVER_RULES: Final = (
    Rule(
        "server.first-event-not-connect",
        SERVER,
        ERROR,
        meaning="the first event delivered was not websocket.connect",
        spec="ASGI WebSocket, Connect: it comes first, during the handshake",
        hint="update the server, or look for an outer middleware that reads the connect",
        claims=(
            Claim(Event.RECEIVE, ANY_APP, (NEW,), server=CONNECTED),  # once, not at each message
            Claim(Event.DISCONNECT, ANY_APP, (NEW,), server=DISCONNECTED),
        ),
    ),
    Rule(
        "server.duplicate-connect",
        SERVER,
        ERROR,
        meaning="websocket.connect was delivered a second time",
        spec="ASGI WebSocket, Connect: one event when the client opens the connection",
        hint="update the server: Granian before 2.3.2 does it when receive() precedes the accept",
        claims=(Claim(Event.CONNECT, ANY_APP, (CONNECTED,)),),
    ),
    Rule(
        "server.receive-before-accept",
        SERVER,
        ERROR,
        meaning="a message was delivered on a connection that was not accepted",
        spec="ASGI WebSocket, Connect: no message before the handshake is answered",
        hint="report it to the server's authors",
        claims=(Claim(Event.RECEIVE, (UNANSWERED, DENYING, REJECTED), (CONNECTED, LOST)),),
    ),
    Rule(
        "server.event-after-disconnect",
        SERVER,
        ERROR,
        meaning="a connect or a message was delivered after the disconnect",
        spec="ASGI WebSocket, Disconnect: it is sent when the connection is lost",
        hint="report it to the server's authors",
        claims=(
            Claim(Event.CONNECT, ANY_APP, (DISCONNECTED,)),
            Claim(Event.RECEIVE, ANY_APP, (DISCONNECTED,)),
        ),
    ),
    Rule(
        "server.duplicate-disconnect",
        SERVER,
        INFO,
        meaning="the disconnect was delivered again",
        spec="ASGI WebSocket, Disconnect: a repetition is not specified",
        hint="nothing to do: several servers repeat it when asked again",
        claims=(Claim(Event.DISCONNECT, ANY_APP, (DISCONNECTED,)),),
    ),
    Rule(
        "server.unknown-event",
        SERVER,
        ERROR,
        meaning="the event delivered has a type that no WebSocket application knows",
        spec="ASGI, Connection Scope: the type of an event begins with its protocol",
        hint="update the server, or look for an outer middleware that makes events",
    ),
    Rule(
        "server.malformed-event",
        SERVER,
        ERROR,
        meaning="what was delivered is not a dict with a str under 'type'",
        spec="ASGI, Specification Details: each event is a dict with a type as a Unicode string",
        hint="update the server, or look for an outer middleware that makes events",
    ),
    Rule(
        "server.receive-no-payload",
        SERVER,
        ERROR,
        meaning="a message was delivered with neither text nor bytes",
        spec="ASGI WebSocket, Receive: one of bytes and text is not None",
        hint="report it to the server's authors",
    ),
    Rule(
        "server.receive-both-payloads",
        SERVER,
        ERROR,
        meaning="a message was delivered with both text and bytes",
        spec="ASGI WebSocket, Receive: only one of bytes and text is not None",
        hint="report it to the server's authors",
    ),
    Rule(
        "server.receive-wrong-type",
        SERVER,
        ERROR,
        meaning="the text delivered is not a str, or the bytes are not bytes",
        spec="ASGI WebSocket, Receive: text is a Unicode string, bytes is a byte string",
        hint="report it to the server's authors",
    ),
    Rule(
        "server.disconnect-code-missing",
        SERVER,
        WARNING,
        meaning="the disconnect carries no code",
        spec="ASGI WebSocket, Disconnect: the code is 1005 if the client sent none",
        hint="read the code with a default (daphne gives None)",
    ),
    Rule(
        "server.disconnect-code-invalid",
        SERVER,
        WARNING,
        meaning="the code of the disconnect is not an int of 1000 to 4999",
        spec="ASGI WebSocket, Disconnect: the code is the int of RFC 6455 7.4",
        hint="do not decide by the code alone",
    ),
    Rule(
        "server.accept-failed",
        SERVER,
        ERROR,
        meaning="a legal accept raised although the client was there",
        spec="ASGI WebSocket, Accept: it completes the handshake",
        hint="update the server: 'ASGI flow error' is Granian before 2.3.2",
    ),
    Rule(
        "server.send-failed",
        SERVER,
        ERROR,
        meaning="a legal send raised something that does not mean a lost connection",
        spec="ASGI WebSocket, Disconnected Client: a failed send raises an OSError",
        hint="update the server, and report the exception to its authors",
    ),
    Rule(
        "server.close-failed",
        SERVER,
        ERROR,
        meaning="a legal close raised",
        spec="ASGI WebSocket, Close: the server closes the connection",
        hint="update the server, and report the exception to its authors",
    ),
    Rule(
        "server.send-raised-non-oserror",
        SERVER,
        INFO,
        meaning="a send to a client that is gone raised something other than an OSError",
        spec="ASGI WebSocket, Disconnected Client: since 2.4 it should be a subclass of OSError",
        hint="catch Exception around such a send while you use this server",
    ),
    Rule(
        "server.scope-invalid",
        SERVER,
        WARNING,
        meaning="a required key of the scope is missing, or a value has the wrong type",
        spec="ASGI WebSocket, Connection Scope: type, asgi, path and headers are required",
        hint="update the server, or look for an outer middleware that makes scopes",
    ),
)

RULES: Final[Mapping[str, Rule]] = MappingProxyType(
    {rule.id: rule for rule in (*_APP_RULES, *_SERVER_RULES)}
)

# After the close or the disconnect there is nobody to send to: what the policy `shield` drops.
SHIELDED: Final = frozenset(
    {
        "app.accept-after-close",
        "app.close-after-disconnect",
        "app.close-twice",
        "app.send-after-close",
        "app.send-after-disconnect",
    }
)
# A denial is out of order before its end, too, where a server can still make sense of it.
SHIELDED_AT_END: Final = SHIELDED | {"app.denial-out-of-order"}
