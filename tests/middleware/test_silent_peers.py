"""What a known protocol checker for ASGI is silent on: each is told, with the party at fault.

A scripted server and a scripted application break one rule, and the middleware between them says
which one and whose it is. What breaks no rule but hangs is told as stuck.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pytest

from tests.support import (
    ACCEPT,
    CLOSE,
    CONNECT,
    DENIAL,
    DISCONNECT,
    books,
    receive_text,
    scope,
    send_text,
)
from ws_lifecycle_metrics import LifecycleMiddleware
from ws_lifecycle_metrics.store.snapshot import Source

if TYPE_CHECKING:
    from ws_lifecycle_metrics import Config

RECEIVE, RECEIVE_TWICE, WAIT = "receive", "receive twice at once", "wait"
DENY = {"type": f"{DENIAL}.start", "status": 403, "headers": []}


def close(code: Any = 1000, reason: str = "") -> dict[str, Any]:
    return {"type": "websocket.close", "code": code, "reason": reason}


@dataclass(frozen=True)
class Case:
    """What the application does, what the server delivers, and what is broken by that.

    `broken` are all rules, in one string. `refuses` maps the number of a send to what the server
    raises at it, None if it never returns.
    """

    broken: str
    does: tuple[Any, ...]
    delivers: tuple[Any, ...] = (CONNECT, DISCONNECT)
    refuses: dict[int, Exception | None] = field(default_factory=dict)
    extensions: tuple[str, ...] = (DENIAL,)


OPEN = (RECEIVE, ACCEPT)

CASES = {
    "double close": Case("app.close-twice", (*OPEN, CLOSE, CLOSE)),
    "second disconnect": Case(
        "server.duplicate-disconnect app.receive-after-disconnect",
        (*OPEN, RECEIVE, RECEIVE),
        (CONNECT, DISCONNECT, DISCONNECT),
    ),
    "a message before the accept": Case(
        "server.receive-before-accept",
        (RECEIVE, RECEIVE, ACCEPT, RECEIVE),
        (CONNECT, receive_text("early"), DISCONNECT),
    ),
    "disconnect without connect": Case("server.first-event-not-connect", (RECEIVE,), (DISCONNECT,)),
    **{
        f"close code {code}": Case("app.close-code-invalid", (*OPEN, close(code)))
        for code in (999, 1005, 1006, 70000)
    },
    "a reason over 123 bytes": Case("app.close-reason-invalid", (*OPEN, close(1000, "r" * 124))),
    "a subprotocol nobody offered": Case(
        "app.subprotocol-not-offered",
        (RECEIVE, {"type": "websocket.accept", "subprotocol": "chat"}, RECEIVE),
    ),
    "a denial without the extension": Case(
        "app.denial-unsupported app.return-before-handshake",
        (RECEIVE, DENY, {"type": f"{DENIAL}.body", "body": b""}),
        extensions=(),
    ),
    "a denial without a body": Case("app.denial-incomplete", (RECEIVE, DENY)),
    "an unknown event": Case("app.unknown-event", (*OPEN, {"type": "websocket.ping"}, RECEIVE)),
    "an HTTP event": Case(
        "app.unknown-event", (*OPEN, {"type": "http.response.start", "status": 200}, RECEIVE)
    ),
    "an HTTP event of the server's": Case(
        "server.unknown-event",
        (*OPEN, RECEIVE, RECEIVE),
        (CONNECT, {"type": "http.request"}, DISCONNECT),
    ),
    "return without an accept": Case("app.return-before-handshake", (RECEIVE,)),
    "return without a close": Case("app.return-without-close", OPEN),
    "an exception before the accept": Case("app.exception", (RECEIVE, KeyError("x"))),
    "an exception after the accept": Case("app.exception", (*OPEN, KeyError("x"))),
    "concurrent receives": Case(
        "app.receive-concurrent", (*OPEN, RECEIVE_TWICE), (CONNECT, receive_text("x"), DISCONNECT)
    ),
    "receive after the disconnect": Case(
        "app.receive-after-disconnect", (*OPEN, RECEIVE, RECEIVE), (CONNECT, DISCONNECT, OSError())
    ),
    "the server's fault at a legal accept": Case(
        "server.accept-failed", OPEN, refuses={0: RuntimeError("ASGI flow error")}
    ),
    "the server's fault at a legal send": Case(
        "server.send-failed", (*OPEN, send_text("x")), refuses={1: RuntimeError("ASGI flow error")}
    ),
    "the server's second connect": Case(
        "server.duplicate-connect", (*OPEN, RECEIVE, RECEIVE), (CONNECT, CONNECT, DISCONNECT)
    ),
}

STUCK = {
    "handshake": Case("", (RECEIVE, WAIT)),
    "send_blocked": Case("", (*OPEN, send_text("x")), refuses={1: None}),
    "closing": Case("", (*OPEN, RECEIVE, WAIT)),
    "receive_withheld": Case("", (*OPEN, CLOSE, RECEIVE), (CONNECT,)),
}


class Server:
    """Delivers a case's events in order, then none; takes what is sent."""

    def __init__(self, case: Case) -> None:
        self._case, self._sends = case, 0
        self._events: asyncio.Queue[Any] = asyncio.Queue()
        for event in case.delivers:
            self._events.put_nowait(event)

    async def receive(self) -> Any:
        await asyncio.sleep(0)  # nothing is there yet when it is called
        event = await self._events.get()
        if isinstance(event, Exception):
            raise event
        return event

    async def send(self, _message: Any) -> None:
        number, self._sends = self._sends, self._sends + 1
        if number in self._case.refuses:
            error = self._case.refuses[number]
            if error is None:
                await asyncio.Event().wait()
            else:
                raise error


def application(case: Case) -> Any:
    async def app(_scope: Any, receive: Any, send: Any) -> None:
        for step in case.does:
            match step:
                case "receive":
                    await receive()
                case "receive twice at once":
                    await asyncio.gather(receive(), receive())
                case "wait":
                    await asyncio.Event().wait()
                case Exception():
                    raise step
                case message:
                    await send(message)

    return app


async def play(case: Case, config: Config) -> None:
    server = Server(case)
    served = scope(extensions={name: {} for name in case.extensions})
    wrapped = LifecycleMiddleware(application(case), config=config)
    async with asyncio.timeout(10):
        await asyncio.gather(wrapped(served, server.receive, server.send), return_exceptions=True)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_it_is_told_with_the_party_at_fault(case: Case, config: Config) -> None:
    asyncio.run(play(case, config))
    told = {key[2:] for key in books(config) if key[0] == "protocol_violations"}
    assert told == {(rule.partition(".")[0], rule) for rule in case.broken.split()}


@pytest.mark.parametrize("reason", STUCK)
def test_what_hangs_is_told_as_stuck(reason: str, config: Config) -> None:
    config = replace(config, **{f"stuck_{reason}": 1e-6})

    async def hang() -> list[str]:
        playing = asyncio.create_task(play(STUCK[reason], config))
        try:
            async with asyncio.timeout(10):
                told: list[str] = []
                while not any(told):
                    await asyncio.sleep(0)
                    told = [c.stuck for c in Source(config).take().connections()]
            return told
        finally:
            playing.cancel()
            await asyncio.wait([playing])

    assert asyncio.run(hang()) == [reason]


def test_all_of_them_are_here() -> None:
    assert len(CASES) + len(STUCK) >= 23
