"""Scripts for transparency: named ones, one a way to go wrong, and random ones for Hypothesis."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

from hypothesis import strategies as st

from tests.middleware.transparency import (
    FORMS,
    PAUSE,
    RECEIVE,
    Angry,
    AngryDict,
    Foreign,
    Inventive,
    Liar,
    Reply,
    Script,
    Step,
    Word,
    noise,
    released,
    send,
)
from tests.support import (
    ACCEPT,
    CLOSE,
    CONNECT,
    DENIAL,
    DISCONNECT,
    receive_bytes,
    receive_text,
    scope,
    send_bytes,
    send_text,
)

HUGE = "h" * 100_000

JUNK: list[Any] = [
    None,
    7,
    "websocket.send",
    b"",
    [],
    object(),
    {},
    {"type": None},
    {"type": []},
    {"type": Liar()},
    {"type": "websocket.sent"},
    {"type": "http.response.start", "status": 200},
    {"text": "no type"},
    Angry(),
    AngryDict(type="websocket.send", text="x"),
    Inventive(),
    Inventive(type="websocket.send"),
    Foreign(),
    Liar(),
    RuntimeError,
]
TO_APP: list[Any] = [
    CONNECT,
    receive_text("hi"),
    receive_text("häßlich"),
    receive_text(HUGE),
    receive_text("\ud800"),
    receive_text(""),
    receive_bytes(b"\x00\xff"),
    {"type": "websocket.receive", "text": None, "bytes": b"both keys"},
    {"type": "websocket.receive", "text": "both", "bytes": b"both"},
    {"type": "websocket.receive"},
    {"type": "websocket.receive", "text": Liar()},
    Foreign(type="websocket.receive", text="foreign"),
    DISCONNECT,
    {"type": "websocket.disconnect"},
    {"type": "websocket.disconnect", "code": "1000"},
    {"type": "websocket.disconnect", "code": Liar()},
]
TO_SERVER: list[Any] = [
    ACCEPT,
    {"type": "websocket.accept", "subprotocol": "chat", "headers": [(b"x", b"y")]},
    {"type": "websocket.accept", "subprotocol": Liar(), "headers": 7},
    send_text("hi"),
    send_text("häßlich"),
    send_text(HUGE),
    send_text("\udfff"),
    send_text(Word("markup")),
    send_bytes(b"\x00"),
    send_bytes(bytearray(b"array")),
    send_bytes(memoryview(b"view")),
    send_bytes(released()),
    {"type": "websocket.send", "text": "x", "bytes": None, "more": 1},
    {"type": "websocket.send", "text": "both", "bytes": b"both"},
    {"type": "websocket.send"},
    {"type": "websocket.send", "text": Liar()},
    Foreign(type="websocket.send", text="foreign"),
    Foreign(type="websocket.send", bytes=b"foreign"),
    CLOSE,
    {"type": "websocket.close"},
    {"type": "websocket.close", "code": 4400, "reason": "r" * 200},
    {"type": "websocket.close", "code": Liar(), "reason": Liar()},
    {"type": f"{DENIAL}.start", "status": 403, "headers": []},
    {"type": f"{DENIAL}.body", "body": b"no", "more_body": True},
    {"type": f"{DENIAL}.body", "body": b"no"},
]
ERRORS = list(noise())


def once() -> Any:
    yield (b"host", b"read me once")


def bare_scope(**fields: Any) -> Any:
    return {"type": "websocket", **fields}


SCOPES: list[Any] = [
    scope,
    partial(scope, subprotocols=["chat"], extensions={DENIAL: {}}),
    lambda: scope(headers=once(), subprotocols=once()),
    partial(scope, path_template="/chat/{room}"),  # its counters move, once it has answered
    partial(bare_scope, path="/", headers=[]),
    bare_scope,
    partial(bare_scope, asgi=Liar(), path=Liar(), headers=Liar(), extensions=Liar()),
    lambda: Inventive(type="websocket"),
    lambda: Foreign(type="websocket", path="/"),
]
OBSERVED = SCOPES[:7]
"""The scopes that a server may make: the others are passed and not looked at."""

LIFESPAN = {"type": "lifespan", "asgi": {"version": "3.0"}}
OTHER_SCOPES: list[Any] = [
    {"type": "http", "method": "GET", "path": "/", "headers": once()},
    LIFESPAN,
    {"type": "websocket2"},
    {"type": None},
    {"type": Liar()},
    {},
    None,
    Angry(),
]

HELLO = (RECEIVE, send(ACCEPT))
ECHO = (*HELLO, RECEIVE, send(send_text("hi")), RECEIVE)
DELIVERED = (Reply(CONNECT), Reply(receive_text("hi"), 1), Reply(DISCONNECT, 1))
_CANCEL, _ERROR = asyncio.CancelledError("stop"), RuntimeError("broken")

NAMED: dict[str, Script] = {
    "an echo": Script(main=ECHO, received=DELIVERED),
    "a close of the application": Script(main=(*HELLO, send({**CLOSE, "code": 4321}), RECEIVE)),
    "the application raises": Script(main=HELLO, end=_ERROR),
    "a receive raises, and the application goes on": Script(
        main=(RECEIVE, Step("receive", catch=True), send(ACCEPT)),
        received=(Reply(CONNECT), Reply(_ERROR)),
    ),
    "a send raises": Script(main=HELLO, sent=(Reply(_ERROR),)),
    "a send raises, and the application goes on": Script(
        main=(RECEIVE, send(ACCEPT, catch=True), send(CLOSE)), sent=(Reply(_ERROR, 1),)
    ),
    "a send returns a value": Script(main=HELLO, sent=(Reply("taken", 1),)),
    "cancelled in a receive": Script(main=ECHO, schedule=((0, None), (0, _CANCEL))),
    "cancelled in a receive, and it goes on": Script(
        main=(*HELLO, Step("receive", catch=True), send(CLOSE)),
        schedule=((0, None), (0, _CANCEL)),
    ),
    "cancelled in a send": Script(
        main=ECHO, sent=(Reply(pauses=2),), schedule=((0, None), (0, _CANCEL))
    ),
    "cancelled between the calls": Script(main=(*HELLO, PAUSE), schedule=((0, None), (0, _CANCEL))),
    "it sends and never receives": Script(main=(send(ACCEPT), send(send_text("a")), PAUSE)),
    "two tasks send at once, the first one slower": Script(
        main=HELLO,
        others=((send(send_text("first")),), (send(send_text("second")),)),
        sent=(Reply(), Reply(pauses=3), Reply()),
        schedule=((0, None), (1, None), (1, None), (2, None)),
    ),
    "text that is not ASCII": Script(
        main=(*HELLO, RECEIVE, send(send_text("h\u00e4\u00df\u20ac"))),
        received=(Reply(CONNECT), Reply(receive_text("\u20ac"))),
    ),
    "three sends in a row": Script(main=(*HELLO, *(send(send_text(t)) for t in "abc"))),
    "a receive while another waits": Script(
        main=(*HELLO, RECEIVE),
        others=((RECEIVE,),),
        received=DELIVERED,
        schedule=((0, None), (1, None), (1, None), (0, None)),
    ),
    "tasks left behind go on": Script(
        main=HELLO,
        others=((PAUSE, send(send_text("late"), catch=True), send(CLOSE)), (RECEIVE, RECEIVE)),
        received=DELIVERED,
        join=False,
    ),
    "a long wait for the client": Script(
        main=ECHO, received=(Reply(CONNECT), Reply(receive_text("at last"), 200))
    ),
    **{
        f"the application sends junk {n}": Script(main=(*HELLO, send(item)))
        for n, item in enumerate(JUNK)
    },
    **{
        f"the server delivers junk {n}": Script(
            main=(*HELLO, RECEIVE), received=(Reply(CONNECT), Reply(item))
        )
        for n, item in enumerate(JUNK)
    },
    **{f"a strange scope {n}": Script(main=ECHO, make_scope=item) for n, item in enumerate(SCOPES)},
    **{f"an application that is a(n) {f}": Script(main=ECHO, form=f) for f in FORMS},
    "awaitables that are no coroutines": Script(main=ECHO, received=DELIVERED, coroutines=False),
}


def _one_of(*choices: list[Any]) -> st.SearchStrategy[Any]:
    # Not sampled_from: it looks at what it samples, and some of these may not be looked at.
    pool = [item for choice in choices for item in choice]
    return st.integers(0, len(pool) - 1).map(pool.__getitem__)


_CATCH = st.booleans()
_TO_SERVER = _one_of(TO_SERVER) | _one_of(TO_SERVER, JUNK)
_TO_APP = _one_of(TO_APP) | _one_of(TO_APP, JUNK, ERRORS)
_STEPS = st.lists(
    st.builds(Step, st.just("receive"), st.none(), _CATCH)
    | st.builds(Step, st.just("send"), _TO_SERVER, _CATCH)
    | st.just(PAUSE),
    max_size=6,
).map(tuple)
_PAUSES = st.sampled_from([0, 0, 0, 1, 2])
_MAIN = st.builds(lambda start, rest: (*start, *rest), st.sampled_from([(), HELLO, HELLO]), _STEPS)
_RECEIVED = st.lists(st.builds(Reply, _TO_APP, _PAUSES), max_size=6).map(tuple)
_CANCELS = st.sampled_from([None, None, None, None, asyncio.CancelledError("turn"), OSError()])

SCRIPTS: st.SearchStrategy[Script] = st.builds(
    Script,
    received=_RECEIVED | _RECEIVED.map(lambda rest: (Reply(CONNECT), *rest)),
    sent=st.lists(
        st.builds(Reply, _one_of([None] * 8, ["taken"], ERRORS), _PAUSES), max_size=6
    ).map(tuple),
    main=_MAIN,
    others=st.lists(_STEPS, max_size=2).map(tuple),
    end=st.none() | _one_of(ERRORS),
    join=st.booleans(),
    schedule=st.lists(st.tuples(st.integers(0, 3), _CANCELS), max_size=12).map(tuple),
    make_scope=_one_of(SCOPES[3:4]) | _one_of(SCOPES),
    form=st.sampled_from(FORMS),
    coroutines=st.booleans(),
)
