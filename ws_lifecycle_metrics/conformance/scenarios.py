"""The life of a WebSocket, legal and illegal, from both sides, as data.

Pure data, hence longer than other files: one entry a scenario. In a scenario whose application
breaks a rule, only the server is judged: what the specification demands of it even then.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

from .script import (
    CONNECTED,
    ECHO,
    END_RECEIVE,
    EXITED,
    FAIL,
    FIN,
    LOST,
    OLDEST_SPEC,
    PONG,
    RESET,
    START_RECEIVE,
    TERMINATE,
    Scenario,
    Script,
    accept,
    binary,
    close,
    closed,
    closes,
    deny,
    do,
    expect,
    frame,
    illegal,
    opened,
    over,
    pause,
    receive,
    refused,
    send,
    send_bytes,
    text,
    until_disconnect,
)

DENIAL: Final = "websocket.http.response"

_CONNECT = "ASGI WebSocket, Connect"
_ACCEPT = "ASGI WebSocket, Accept"
_RECEIVE = "ASGI WebSocket, Receive"
_SEND = "ASGI WebSocket, Send"
_CLOSE = "ASGI WebSocket, Close"
_DISCONNECT = "ASGI WebSocket, Disconnect"
_GONE = "ASGI WebSocket, Disconnected Client"
_SCOPE = "ASGI WebSocket, Connection Scope"
_ERRORS = "ASGI, Error Handling"
_APPLICATIONS = "ASGI, Applications"
_DENIAL_SPEC = "ASGI Extensions, WebSocket Denial Response"
_SHUTDOWN = "ASGI Lifespan, Shutdown"
_RFC = "RFC 6455"

_BIG = bytes(range(256)) * 4096  # 1 MiB
_MANY = tuple(f"message {number}" for number in range(500))


def _codes(*codes: int) -> frozenset[int]:
    return frozenset(codes)


def _scenario(
    id: str,
    title: str,
    spec: str,
    app: Script,
    client: Script,
    *,
    fresh: bool = False,
    needs: str = "",
    since: str = OLDEST_SPEC,
    timeout: float = 20.0,
    settle: float = 5.0,
    tries: int = 1,
) -> Scenario:
    return Scenario(
        id=id,
        title=title,
        spec=spec,
        app=app,
        client=client,
        fresh=fresh,
        needs=needs,
        since=since,
        timeout=timeout,
        settle=settle,
        tries=tries,
    )


_HANDSHAKE = (
    _scenario(
        "accept",
        "the application accepts, and the client leaves with 1000",
        f"{_ACCEPT}: the handshake is completed",
        (*CONNECTED, until_disconnect(_codes(1000))),
        (opened(), closes(1000)),
    ),
    _scenario(
        "accept-without-reading-connect",
        "the application accepts before it reads connect",
        f"{_CONNECT}: the event is sent when the client opens; known servers take the accept",
        (accept(), until_disconnect()),
        (opened(), closes(1000)),
    ),
    _scenario(
        "receive-before-accept",
        "a receive() is in flight while the application accepts",
        f"{_CONNECT}: one connect, and nothing more before the answer",
        (receive(), START_RECEIVE, accept(), send("welcome"), END_RECEIVE, until_disconnect()),
        (opened(), expect("welcome"), text("hello"), closes(1000)),
        fresh=True,
    ),
    _scenario(
        "accept-is-slow",
        "the application needs a second for its accept",
        f"{_CONNECT}: the handshake is completed by the reply",
        (receive(), pause(1.0), accept(), until_disconnect()),
        (opened(), closes(1000)),
    ),
    _scenario(
        "reject",
        "the application closes before the accept",
        f"{_CLOSE}: the server answers 403",
        (receive(), close()),
        (refused(403),),
    ),
    _scenario(
        "reject-with-code",
        "the application rejects with a code and a reason of its own",
        f"{_CLOSE}: the server answers 403",
        (receive(), close(code=4003, reason="forbidden")),
        (refused(403),),
    ),
    _scenario(
        "reject-without-reading-connect",
        "the application rejects before it reads connect",
        f"{_CLOSE}: the server answers 403",
        (close(),),
        (refused(403),),
    ),
    _scenario(
        "reject-then-receive",
        "after its reject the application waits for the disconnect",
        f"{_DISCONNECT}: it is sent when the server closed the connection",
        (receive(), close(), until_disconnect()),
        (refused(403),),
        fresh=True,
    ),
    _scenario(
        "return-before-accept",
        "the application returns without an answer",
        f"{_SCOPE}: when the application is gone the socket is closed",
        (receive(),),
        (refused(),),
    ),
    _scenario(
        "raise-before-accept",
        "the application raises before the accept",
        f"{_ERRORS}: the server ends the connection",
        (receive(), FAIL),
        (refused(),),
    ),
    _scenario(
        "never-accepted-client-leaves",
        "the client gives up while the application waits in receive()",
        f"{_DISCONNECT}: it is sent when the socket is lost",
        (receive(), until_disconnect()),
        (do("request"), pause(0.3), RESET),
        fresh=True,
    ),
    _scenario(
        "client-leaves-during-handshake",
        "the client gives up, and the application accepts after that",
        f"{_GONE}: the accept is a no-op or an OSError; the disconnect follows",
        (
            receive(),
            pause(0.8),
            do("illegal", message={"type": "websocket.accept"}, must_raise=False),
            until_disconnect(LOST),
        ),
        (do("request"), pause(0.2), RESET),
        fresh=True,
    ),
    _scenario(
        "subprotocol-chosen",
        "the application picks the second of two subprotocols",
        f"{_ACCEPT}: the subprotocol is the one that the server answers",
        (
            do("scope", subprotocols=["first", "second"]),
            receive(),
            accept(subprotocol="second"),
            until_disconnect(),
        ),
        (opened(subprotocols=("first", "second"), chosen="second"), closes(1000)),
    ),
    _scenario(
        "subprotocol-none",
        "the application picks none of the subprotocols",
        f"{_ACCEPT}: no subprotocol is answered",
        (*CONNECTED, until_disconnect()),
        (opened(subprotocols=("first", "second"), chosen=""), closes(1000)),
    ),
    _scenario(
        "subprotocol-not-offered",
        "the application picks a subprotocol that was not offered",
        f"{_RFC} 4.2.2: whatever the server does, nobody may be left waiting",
        (receive(), accept(subprotocol="invented"), until_disconnect()),
        (do("open", status=-1, subprotocols=("first",)), RESET),
    ),
    _scenario(
        "accept-headers",
        "the application adds headers to its accept",
        f"{_ACCEPT}: headers are sent in the handshake's answer",
        (receive(), accept(headers=[(b"x-first", b"1"), (b"x-second", b"2")]), until_disconnect()),
        (opened(answered={"x-first": "1", "x-second": "2"}), closes(1000)),
        since="2.1",
    ),
    _scenario(
        "accept-subprotocol-with-newline",
        "the application picks a subprotocol that holds CR and LF",
        "RFC 9110 5.5: a field value holds no CR or LF; the worker lives on",
        (receive(), accept(subprotocol="a\r\nx-injected: 1"), until_disconnect()),
        (do("open", status=-1, forbidden="x-injected"), RESET),
        fresh=True,
    ),
    _scenario(
        "scope-path",
        "the path holds percent-encoded characters, and there is a query",
        f"{_SCOPE}: path is decoded, query_string is raw",
        (do("scope", path="/run/scope-path/caf\u00e9 \u2713"), *CONNECTED, until_disconnect()),
        (opened(path="/caf%C3%A9%20%E2%9C%93"), closes(1000)),
    ),
    _scenario(
        "scope-headers",
        "the client sends one header twice",
        f"{_SCOPE}: duplicates and their order are kept",
        (
            do("scope", headers=[(b"x-twice", b"one"), (b"x-twice", b"two")]),
            *CONNECTED,
            until_disconnect(),
        ),
        (opened(headers=(("x-twice", "one"), ("x-twice", "two"))), closes(1000)),
    ),
)

_DENIAL_SCENARIOS = (
    _scenario(
        "denial",
        "the application denies with 401 and a body",
        f"{_DENIAL_SPEC}: the response is sent as it is, then the connection is closed",
        (receive(), *deny(401, b"who are you?")),
        (refused(401),),
        needs=DENIAL,
    ),
    _scenario(
        "denial-in-two-parts",
        "the body of the denial comes in two parts",
        f"{_DENIAL_SPEC}: more_body as in HTTP",
        (receive(), *deny(404, b"not ", b"here")),
        (refused(404),),
        needs=DENIAL,
    ),
    _scenario(
        "denial-then-receive",
        "after its denial the application waits for the disconnect",
        f"{_DISCONNECT}: it is sent when the server closed the connection",
        (receive(), *deny(403, b"no"), until_disconnect()),
        (refused(403),),
        needs=DENIAL,
        fresh=True,
    ),
    _scenario(
        "denial-incomplete",
        "the application ends before the last body",
        f"{_SCOPE}: when the application is gone the socket is closed",
        (receive(), *deny(401, b"half", b"the rest")[:-1]),
        (refused(),),
        needs=DENIAL,
    ),
)

_MESSAGES = (
    _scenario(
        "echo-text",
        "text comes back as it was sent",
        f"{_RECEIVE}: text is a Unicode string",
        (*CONNECTED, ECHO),
        (opened(), text("h\u00e9llo \U0001f40d"), expect("h\u00e9llo \U0001f40d"), closes(1000)),
    ),
    _scenario(
        "echo-binary",
        "bytes come back as they were sent",
        f"{_RECEIVE}: bytes are bytes",
        (*CONNECTED, ECHO),
        (opened(), binary(b"\x00\xff\x80"), expect(b"\x00\xff\x80"), closes(1000)),
    ),
    _scenario(
        "empty-text",
        "the application sends an empty text",
        f"{_SEND}: an empty text is a message",
        (*CONNECTED, send(""), send("after"), until_disconnect()),
        (opened(), expect("", "after"), closes(1000)),
    ),
    _scenario(
        "empty-bytes",
        "the application sends empty bytes",
        f"{_SEND}: empty bytes are a message",
        (*CONNECTED, send_bytes(b""), send("after"), until_disconnect()),
        (opened(), expect(b"", "after"), closes(1000)),
    ),
    _scenario(
        "empty-from-client",
        "the client sends an empty text and empty bytes",
        f"{_RECEIVE}: exactly one of text and bytes is not None",
        (*CONNECTED, receive(), receive(), send("both"), until_disconnect()),
        (opened(), text(""), binary(b""), expect("both"), closes(1000)),
    ),
    _scenario(
        "big-message",
        "a message of 1 MiB goes both ways",
        f"{_RECEIVE}: whole messages",
        (*CONNECTED, ECHO),
        (opened(), binary(_BIG), expect(_BIG), closes(1000)),
    ),
    _scenario(
        "fragments",
        "the client's message comes in three fragments with a ping between",
        f"{_SCOPE}: fragmentation is the server's; {_RFC} 5.4",
        (*CONNECTED, ECHO),
        (
            opened(),
            frame(1, b"one ", fin=False),
            frame(0, b"two ", fin=False),
            PONG,
            frame(0, b"three"),
            expect("one two three"),
            closes(1000),
        ),
    ),
    _scenario(
        "many-messages",
        "500 messages come back in order",
        f"{_SEND}: messages keep their order",
        (*CONNECTED, ECHO),
        (opened(), do("burst", messages=_MANY), expect(*_MANY), closes(1000)),
    ),
    _scenario(
        "sends-at-once",
        "20 tasks send at the same time",
        f"{_APPLICATIONS}: each send is whole",
        (
            *CONNECTED,
            do("concurrently", messages=("x" * 2000,) * 20),
            until_disconnect(),
        ),
        (opened(), expect(*("x" * 2000,) * 20), closes(1000)),
    ),
    _scenario(
        "send-while-receiving",
        "the application sends while its receive() is in flight",
        f"{_APPLICATIONS}: both directions are independent",
        (*CONNECTED, START_RECEIVE, send("first"), END_RECEIVE, send("second"), until_disconnect()),
        (opened(), expect("first"), text("go on"), expect("second"), closes(1000)),
    ),
    _scenario(
        "slow-application",
        "the client sends 100 messages while the application does not read",
        f"{_RECEIVE}: nothing is lost",
        (*CONNECTED, pause(1.0), ECHO),
        (opened(), do("burst", messages=_MANY[:100]), expect(*_MANY[:100]), closes(1000)),
    ),
    _scenario(
        "back-pressure",
        "the application sends 32 MiB to a client that does not read for 3 seconds",
        f"{_APPLICATIONS}: send returns when the data is sent",
        (*CONNECTED, do("flood", size=65536, count=512, unread=3.0), until_disconnect()),
        (
            opened(window=65536),
            pause(3.0),
            do("swallow", size=65536 * 512),
            closes(1000),
        ),
        fresh=True,
        timeout=45.0,
    ),
    _scenario(
        "concurrent-receives",
        "two receive() in flight get one message each",
        f"{_APPLICATIONS}: not specified; nobody may be left waiting",
        (
            *CONNECTED,
            START_RECEIVE,
            START_RECEIVE,
            send("ready"),
            do("end_any_receives", within=2.0),
            close(code=4000),
        ),
        (opened(), expect("ready"), text("one"), text("two"), over()),
        fresh=True,
    ),
)

_CONTROL = (
    _scenario(
        "ping",
        "a ping while the application waits in receive()",
        f"{_RFC} 5.5.2: a pong is sent as soon as is practical",
        (*CONNECTED, until_disconnect()),
        (opened(), PONG, closes(1000)),
    ),
    _scenario(
        "ping-application-busy",
        "a ping while the application waits for something else",
        f"{_SCOPE}: pings are the server's; {_RFC} 5.5.2",
        (*CONNECTED, pause(6.0), until_disconnect()),
        (opened(), PONG, pause(2.0), closes(1000)),
    ),
    _scenario(
        "unasked-pong",
        "the client sends a pong that nobody asked for",
        f"{_RFC} 5.5.3: no answer is expected",
        (*CONNECTED, ECHO),
        (opened(), frame(10, b"beat"), text("still there"), expect("still there"), closes(1000)),
    ),
    *(
        _scenario(
            id,
            title,
            f"{_RFC} {section}: the connection is failed; {_DISCONNECT}: it is sent then",
            (*CONNECTED, until_disconnect()),
            (opened(), step, do("failed")),
        )
        for id, title, section, step in (
            ("invalid-utf8", "the client's text is no UTF-8", "8.1", frame(1, b"\xff\xfe")),
            ("unmasked-frame", "the client does not mask", "5.1", frame(1, b"x", masked=False)),
            ("reserved-opcode", "the client uses opcode 3", "5.2", frame(3, b"x")),
            ("reserved-bit", "the client sets RSV1", "5.2", frame(1, b"x", rsv=4)),
            ("long-control-frame", "a ping of 126 bytes", "5.5", frame(9, b"x" * 126)),
            ("stray-continuation", "a continuation of nothing", "5.4", frame(0, b"x")),
        )
    ),
)

_LEAVING = (
    *(
        _scenario(
            f"client-closes-{name}",
            title,
            f"{_DISCONNECT}: the code is that of the close frame, 1005 if it had none",
            (*CONNECTED, until_disconnect(_codes(expected))),
            (opened(), closes(code, reason)),
        )
        for name, title, code, reason, expected in (
            ("1000-reason", "1000 with a reason", 1000, "bye", 1000),
            ("1001", "a browser tab goes away", 1001, "", 1001),
            ("empty", "a close frame without a code", None, "", 1005),
            ("4242", "a code of the client's own", 4242, "", 4242),
        )
    ),
    _scenario(
        "client-resets",
        "the client vanishes by an RST",
        f"{_DISCONNECT}: it is sent when the socket is lost",
        (*CONNECTED, until_disconnect(LOST)),
        (opened(), RESET),
    ),
    _scenario(
        "client-ends-without-close",
        "the client ends its TCP connection without a close frame",
        f"{_DISCONNECT}: it is sent when the socket is lost",
        (*CONNECTED, until_disconnect(LOST)),
        (opened(), FIN),
    ),
    _scenario(
        "client-closes-illegal-code",
        "the client closes with 1005",
        f"{_RFC} 7.4.1: it may not be sent; {_DISCONNECT}: it is sent all the same",
        (*CONNECTED, until_disconnect()),
        (opened(), frame(8, b"\x03\xed"), over()),
    ),
    _scenario(
        "client-leaves-after-burst",
        "the client sends 50 messages and resets at once",
        f"{_DISCONNECT}: it comes after the messages",
        (*CONNECTED, until_disconnect(LOST)),
        (opened(), do("burst", messages=_MANY[:50]), RESET),
    ),
    _scenario(
        "client-leaves-while-echoing",
        "the client sends 50 messages and resets while they are sent back",
        f"{_APPLICATIONS}: send returns when the connection is closed",
        (*CONNECTED, ECHO),
        (opened(), do("burst", messages=_MANY[:50]), RESET),
        fresh=True,
        tries=3,
    ),
    _scenario(
        "receive-after-disconnect",
        "the application calls receive() after the disconnect",
        f"{_DISCONNECT}: what follows is not specified; noted, not judged",
        (*CONNECTED, until_disconnect(), do("receive_again", within=1.0)),
        (opened(), closes(1000)),
    ),
    _scenario(
        "send-after-disconnect",
        "the application sends after it read the disconnect",
        f"{_GONE}: an OSError, or nothing",
        (*CONNECTED, until_disconnect(), illegal(type="websocket.send", text="late")),
        (opened(), closes(1000)),
    ),
    _scenario(
        "close-after-disconnect",
        "the application closes after it read the disconnect",
        f"{_ERRORS}: a no-op",
        (*CONNECTED, until_disconnect(), illegal(type="websocket.close")),
        (opened(), closes(1000)),
    ),
    _scenario(
        "sends-after-reset",
        "an application that only sends, after the client's RST",
        f"{_GONE}: a send should raise an OSError (since 2.4)",
        (*CONNECTED, do("send_until_told", seconds=4.0, must_end=True)),
        (opened(), RESET),
        fresh=True,
        since="2.4",
        settle=8.0,
    ),
    _scenario(
        "sends-after-client-close",
        "an application that only sends, after the client's close frame",
        f"{_GONE}: a send should raise an OSError (since 2.4)",
        (*CONNECTED, do("send_until_told", seconds=4.0, must_end=True)),
        (opened(), frame(8, b"\x03\xe8"), pause(0.5), FIN),
        fresh=True,
        since="2.4",
        settle=8.0,
    ),
    _scenario(
        "blocked-send-reset",
        "a send() is blocked when the client resets",
        f"{_APPLICATIONS}: send returns when the connection is closed",
        (*CONNECTED, do("flood", size=65536, count=512, unread=0.0)),
        (opened(window=65536), pause(1.5), RESET),
        fresh=True,
        settle=8.0,
    ),
)

_CLOSING = (
    *(
        _scenario(
            f"close-{code}",
            f"the application closes with {code}",
            f"{_CLOSE}: the socket is closed with the given code",
            (*CONNECTED, close(code=code)),
            (opened(), closed(code)),
        )
        for code in (1000, 1001, 1011, 3000, 4999)
    ),
    _scenario(
        "close-without-code",
        "the application closes without a code",
        f"{_CLOSE}: the code is 1000",
        (*CONNECTED, do("send", message={"type": "websocket.close"})),
        (opened(), closed(1000)),
    ),
    *(
        _scenario(
            f"close-illegal-{code}",
            f"the application closes with {code}, which may not be sent",
            f"{_RFC} 7.4: no such code on the wire; nobody is left waiting",
            (*CONNECTED, close(code=code)),
            (opened(), over()),
        )
        for code in (999, 1005, 1006, 70000)
    ),
    _scenario(
        "close-reason",
        "the application closes with a reason",
        f"{_CLOSE}: the reason is the given one",
        (*CONNECTED, close(code=4000, reason="that is all")),
        (opened(), closed(4000, reason="that is all")),
        since="2.3",
    ),
    _scenario(
        "close-reason-long",
        "the reason takes 200 bytes",
        f"{_RFC} 5.5: a control frame carries 125 bytes",
        (*CONNECTED, close(code=4000, reason="r" * 200)),
        (opened(), over()),
    ),
    _scenario(
        "close-then-receive",
        "after its own close the application waits for the disconnect",
        f"{_DISCONNECT}: it is sent when the server closed the connection",
        (*CONNECTED, close(code=4001), until_disconnect()),
        (opened(), closed(4001)),
    ),
    _scenario(
        "close-with-pending-receive",
        "the application closes while its receive() is in flight",
        f"{_CLOSE}: legal; {_DISCONNECT}: the receive() gets it",
        (*CONNECTED, START_RECEIVE, close(code=4400), END_RECEIVE),
        (opened(), closed(4400)),
        fresh=True,
    ),
    _scenario(
        "close-unanswered",
        "the client never answers the application's close frame",
        f"{_SCOPE}: the application may end; the socket is closed in the end",
        (*CONNECTED, close(code=4001)),
        (opened(), closed(4001, answer=False), pause(1.0)),
        settle=25.0,
        timeout=40.0,
    ),
    _scenario(
        "return-without-close",
        "the application returns with the connection open",
        f"{_SCOPE}: when the application is gone the socket is closed",
        CONNECTED,
        (opened(), over()),
    ),
    _scenario(
        "return-with-pending-receive",
        "the application returns while its receive() is in flight",
        f"{_SCOPE}: the socket is closed, and other connections go on",
        (*CONNECTED, START_RECEIVE),
        (opened(), pause(0.3), do("alive"), over()),
        fresh=True,
    ),
    _scenario(
        "raise-after-accept",
        "the application raises with the connection open",
        f"{_ERRORS}: the server ends the connection",
        (*CONNECTED, FAIL),
        (opened(), over()),
    ),
    _scenario(
        "raise-with-pending-receive",
        "the application raises while its receive() is in flight",
        f"{_ERRORS}: the server ends the connection, and no other",
        (*CONNECTED, START_RECEIVE, FAIL),
        (opened(), pause(0.3), do("alive"), over()),
        fresh=True,
    ),
)

_ILLEGAL = (
    _scenario(
        "accept-twice",
        "the application accepts twice",
        f"{_ACCEPT}: one handshake; the connection is not left in a half state",
        (*CONNECTED, illegal(type="websocket.accept"), close(code=4000)),
        (opened(), over()),
    ),
    _scenario(
        "accept-after-reject",
        "the application accepts after its reject",
        f"{_CLOSE}: the handshake is over",
        (receive(), close(), illegal(type="websocket.accept")),
        (refused(403),),
    ),
    _scenario(
        "send-before-accept",
        "the application sends before its accept",
        f"{_CONNECT}: nothing but an answer; the client is told how it ends",
        (receive(), illegal(type="websocket.send", text="too early")),
        (refused(),),
    ),
    _scenario(
        "send-after-close",
        "the application sends after its own close",
        f"{_CLOSE}: the close is the last frame on the wire",
        (*CONNECTED, close(code=4000), illegal(type="websocket.send", text="late")),
        (opened(), closed(4000)),
    ),
    _scenario(
        "close-twice",
        "the application closes twice",
        f"{_CLOSE}: the first code counts",
        (*CONNECTED, close(code=4000), illegal(type="websocket.close", code=4001)),
        (opened(), closed(4000)),
    ),
    *(
        _scenario(
            id,
            title,
            f"{_ERRORS}: the server raises on an invalid event",
            (*CONNECTED, do("illegal", message=message, must_raise=True)),
            (opened(), do("drained"), RESET),
        )
        for id, title, message in (
            ("unknown-event", "an event of an unknown type", {"type": "websocket.bogus"}),
            ("http-event", "an HTTP event", {"type": "http.response.start", "status": 200}),
            ("event-without-type", "an event without a type", {"text": "x"}),
            ("send-no-payload", "a message without a payload", {"type": "websocket.send"}),
            (
                "send-both-payloads",
                "a message with text and bytes",
                {"type": "websocket.send", "text": "x", "bytes": b"x"},
            ),
            ("send-text-as-int", "a text that is an int", {"type": "websocket.send", "text": 42}),
            (
                "send-bytes-as-text",
                "bytes that are a str",
                {"type": "websocket.send", "bytes": "x"},
            ),
        )
    ),
    _scenario(
        "send-lone-surrogate",
        "a text that has no UTF-8",
        f"{_RFC} 8.1: no such text on the wire",
        (*CONNECTED, illegal(type="websocket.send", text="\ud800")),
        (opened(), do("drained"), RESET),
    ),
)

_SHUTTING_DOWN = (
    _scenario(
        "sigterm-idle",
        "SIGTERM after a WebSocket that ended well",
        f"{_SHUTDOWN}: the server exits",
        (*CONNECTED, ECHO),
        (opened(), text("x"), expect("x"), closes(1000), TERMINATE, EXITED),
        fresh=True,
        timeout=30.0,
        tries=2,
    ),
    _scenario(
        "sigterm-open-connection",
        "SIGTERM while the application waits in receive()",
        f"{_SHUTDOWN}, {_DISCONNECT}: the connection is closed, the application told or cancelled",
        (*CONNECTED, until_disconnect()),
        (opened(), pause(0.5), TERMINATE, do("over", within=12.0), EXITED),
        fresh=True,
        timeout=30.0,
        tries=4,
    ),
)


def _graphql(init: str, ack: str, start: str, next: str) -> tuple[Script, Script]:
    """A subscription with two results, in the words of one of the two subprotocols."""
    app = (receive(), send(ack), receive(), send(next), send(next), send('{"type":"complete"}'))
    client = (text(init), expect(ack), text(start), expect(next, next, '{"type":"complete"}'))
    return app, client


_WORDS = (
    (
        "graphql-transport-ws",
        _graphql(
            '{"type":"connection_init"}',
            '{"type":"connection_ack"}',
            '{"type":"subscribe","id":"1"}',
            '{"type":"next","id":"1"}',
        ),
    ),
    (
        "graphql-ws",
        _graphql(
            '{"type":"connection_init"}',
            '{"type":"connection_ack"}',
            '{"type":"start","id":"1"}',
            '{"type":"data","id":"1"}',
        ),
    ),
)

_GRAPHQL = (
    *(
        _scenario(
            f"{name}-session",
            f"a subscription over {name} from init to complete",
            f"{_ACCEPT}, {_SEND}: the subprotocol is answered, results keep their order",
            (receive(), accept(subprotocol=name), *app, until_disconnect(_codes(1000))),
            (opened(subprotocols=(name,), chosen=name), *client, closes(1000)),
        )
        for name, (app, client) in _WORDS
    ),
    *(
        _scenario(
            f"{name}-vanishes",
            f"the client of a subscription over {name} resets between results",
            f"{_DISCONNECT}: it is sent when the socket is lost",
            (receive(), accept(subprotocol=name), *app[:4], until_disconnect(LOST)),
            (opened(subprotocols=(name,), chosen=name), *client[:3], RESET),
        )
        for name, (app, client) in _WORDS
    ),
    _scenario(
        "graphql-transport-ws-background-accept",
        "the accept comes from a task while a receive() is in flight, as Channels does",
        f"{_CONNECT}: one connect; {_ACCEPT}: it completes the handshake",
        (
            receive(),
            START_RECEIVE,
            accept(subprotocol="graphql-transport-ws"),
            END_RECEIVE,
            START_RECEIVE,
            send('{"type":"connection_ack"}'),
            END_RECEIVE,
        ),
        (
            opened(subprotocols=("graphql-transport-ws",), chosen="graphql-transport-ws"),
            text('{"type":"connection_init"}'),
            expect('{"type":"connection_ack"}'),
            closes(1000),
        ),
        fresh=True,
    ),
    _scenario(
        "graphql-transport-ws-server-close",
        "4409 while a receive() is in flight, then results that come too late",
        f"{_CLOSE}: the close is the last frame on the wire, and the receive() gets a disconnect",
        (
            receive(),
            accept(subprotocol="graphql-transport-ws"),
            START_RECEIVE,
            close(code=4409, reason="Subscriber for 1 already exists"),
            illegal(type="websocket.send", text='{"type":"next","id":"1"}'),
            END_RECEIVE,
        ),
        (
            opened(subprotocols=("graphql-transport-ws",), chosen="graphql-transport-ws"),
            closed(4409),
        ),
        fresh=True,
    ),
)


def _by_id(scenarios: Iterable[Scenario]) -> Mapping[str, Scenario]:
    return MappingProxyType({scenario.id: scenario for scenario in scenarios})


SCENARIOS: Final = _by_id(
    (
        *_HANDSHAKE,
        *_DENIAL_SCENARIOS,
        *_MESSAGES,
        *_CONTROL,
        *_LEAVING,
        *_CLOSING,
        *_ILLEGAL,
        *_SHUTTING_DOWN,
        *_GRAPHQL,
    )
)
