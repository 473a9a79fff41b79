"""The application that everything wraps, the wrapper that does nothing, and a server in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextvars import Context, copy_context
from typing import Any, NamedTuple

App = Callable[[Any, Any, Any], Any]

SCOPE = {
    "type": "websocket",
    "asgi": {"version": "3.0", "spec_version": "2.4"},
    "http_version": "1.1",
    "scheme": "ws",
    "path": "/chat",
    "raw_path": b"/chat",
    "root_path": "",
    "query_string": b"",
    "headers": [
        (b"host", b"localhost"),
        (b"upgrade", b"websocket"),
        (b"connection", b"Upgrade"),
        (b"sec-websocket-version", b"13"),
        (b"origin", b"http://localhost"),
    ],
    "client": ("127.0.0.1", 40000),
    "server": ("127.0.0.1", 8000),
    "subprotocols": [],
    "state": {},
    "extensions": {"websocket.http.response": {}},
}


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Accept, send back what comes, and end when the client leaves."""
    await receive()
    await send({"type": "websocket.accept"})
    while True:
        event = await receive()
        if event["type"] == "websocket.disconnect":
            return
        await send({"type": "websocket.send", "text": event["text"]})


def noop(app: App) -> App:
    """Wrap an application in two async closures, the least that any observer adds."""

    async def wrapped(scope: Any, receive: Any, send: Any) -> None:
        async def receiving() -> Any:
            return await receive()

        async def sending(message: Any) -> Any:
            return await send(message)

        await app(scope, receiving, sending)

    return wrapped


class Server:
    """Delivers a connect, then texts, then a disconnect or nothing; takes all that is sent."""

    def __init__(self, text: str, messages: int, *, leaves: bool = True) -> None:
        self.text, self.left, self.leaves = text, messages, leaves
        self.connected = False

    async def receive(self) -> Any:
        """Return the next event, at once."""
        if self.left and self.connected:
            self.left -= 1
            return {"type": "websocket.receive", "text": self.text}
        if not self.connected:
            self.connected = True
            return {"type": "websocket.connect"}
        if self.leaves:
            return {"type": "websocket.disconnect", "code": 1000}
        await asyncio.sleep(0)  # gives way until `one_each` lets it go on
        return await self.receive()

    async def send(self, message: Any) -> None:
        """Take an event."""

    def serve(self, app: App) -> Any:
        """Return the conversation's coroutine."""
        return app(dict(SCOPE), self.receive, self.send)


def converse(app: App, servers: Iterable[Server]) -> None:
    """Run conversations to their ends; nothing waits, so no loop is measured.

    Each has a context of its own, as in a server's task: some peers take a second one in the same
    context for a part of the first, and do nothing.
    """
    for server in servers:
        try:
            copy_context().run(server.serve(app).send, None)
        except StopIteration:
            continue
        raise AssertionError("the conversation did not end")


class Idle(NamedTuple):
    """A connection that waits for messages."""

    server: Server
    context: Context
    coroutine: Any


async def open_idle(app: App, count: int) -> list[Idle]:
    """Return connections that are accepted and wait."""
    running = []
    for _ in range(count):
        server, context = Server("", 0, leaves=False), copy_context()
        coroutine = server.serve(app)
        context.run(coroutine.send, None)
        running.append(Idle(server, context, coroutine))
        if len(running) % 500 == 0:
            await asyncio.sleep(0)  # the watchdog would say that the loop hangs, and be right
    return running


def one_each(running: list[Idle], text: str) -> None:
    """Have each connection receive one message, and wait again once it has sent it back."""
    for server, context, coroutine in running:
        server.text, server.left = text, 1
        context.run(coroutine.send, None)


async def end(running: list[Idle]) -> None:
    """End such connections."""
    for number, (_, context, coroutine) in enumerate(running):
        context.run(coroutine.close)
        if number % 500 == 0:
            await asyncio.sleep(0)
    running.clear()
