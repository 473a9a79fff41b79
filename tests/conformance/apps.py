"""Applications that are tried: correct ones, which must give no finding, and faulty ones."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator

import strawberry
from fastapi import FastAPI, WebSocket
from strawberry.asgi import GraphQL


@strawberry.type
class Query:
    hello: str = "world"


@strawberry.type
class Half:
    """An answer of which one part fails."""

    @strawberry.field
    def there(self) -> int:
        return 1

    @strawberry.field
    def failing(self) -> int | None:
        raise PermissionError("not for you")


@strawberry.type
class Subscription:
    @strawberry.subscription
    async def count(self, to: int = 3) -> AsyncGenerator[int, None]:
        for number in range(to):
            await asyncio.sleep(0.01)
            yield number

    @strawberry.subscription
    async def half(self) -> AsyncGenerator[Half, None]:
        yield Half()

    @strawberry.subscription
    async def forbidden(self) -> AsyncGenerator[int, None]:
        raise PermissionError("not for you")
        yield 0


graphql = GraphQL(strawberry.Schema(Query, subscription=Subscription))


async def echo(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})
        return
    if scope["type"] != "websocket":
        raise RuntimeError("no lifespan")
    await receive()
    await send({"type": "websocket.accept"})
    while (event := await receive())["type"] == "websocket.receive":
        await send({**event, "type": "websocket.send"})


def make_echo():
    return echo


async def make_late():
    return echo


async def websockets_alone(scope, receive, send):
    """Take all for a WebSocket: an HTTP request gets no answer."""
    if scope["type"] == "http":
        await receive()
        await asyncio.Event().wait()
    await echo(scope, receive, send)


async def raising(scope, receive, send):
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        if (await receive())["type"] == "websocket.receive":
            raise ValueError("secret contents")


async def talking_and_raising(scope, receive, send):
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        for _ in range(20):
            await send({"type": "websocket.send", "text": "x"})
        raise ValueError


async def rejecting(scope, receive, send):
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close"})


async def returning(scope, receive, send):
    if scope["type"] == "websocket":
        await receive()


async def raising_at_once(scope, receive, send):
    if scope["type"] == "websocket":
        raise ValueError


async def silent(scope, receive, send):
    if scope["type"] == "websocket":
        await asyncio.sleep(60)


async def slow(scope, receive, send):
    if scope["type"] == "websocket":
        await asyncio.sleep(1)
    await echo(scope, receive, send)


class FirstAnd:
    """Take the first connection, and give each later one to another application."""

    def __init__(self, later):
        self.later = later
        self.opened = 0

    async def __call__(self, scope, receive, send):
        if scope["type"] == "websocket":
            self.opened += 1
        await (self.later if self.opened > 1 else echo)(scope, receive, send)


once, slow_later = FirstAnd(rejecting), FirstAnd(slow)


class OneAtATime:
    """Refuse whoever comes while another is there."""

    def __init__(self):
        self.busy = False

    async def __call__(self, scope, receive, send):
        if scope["type"] != "websocket" or self.busy:
            await rejecting(scope, receive, send)
            return
        self.busy = True
        try:
            await echo(scope, receive, send)
        finally:
            self.busy = False


one_at_a_time = OneAtATime()


async def for_one_host(scope, receive, send):
    """Take who names one host, and no other beside it."""
    headers = [value for name, value in scope.get("headers", ()) if name == b"host"]
    taken = scope["type"] != "websocket" or headers == [b"shop.example"]
    await (echo if taken else rejecting)(scope, receive, send)


async def never_accepting(scope, receive, send):
    if scope["type"] != "websocket":
        await echo(scope, receive, send)
        return
    while (await receive())["type"] != "websocket.disconnect":
        pass


async def refusing(scope, receive, send):
    """Refuse every operation, with a message that is bad for a terminal."""
    if scope["type"] != "websocket":
        return
    chosen = scope["subprotocols"][0]
    error = {"message": "\x1b[2J\nno" + "x" * 1000}
    answers = {
        "graphql-transport-ws": {"type": "error", "payload": [error]},
        "graphql-ws": {"type": "data", "payload": {"data": None, "errors": [error]}},
    }
    await receive()
    await send({"type": "websocket.accept", "subprotocol": chosen})
    await receive()
    await send({"type": "websocket.send", "text": '{"type": "connection_ack"}'})
    while (await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": "[" * 100_000})  # too deep for a parser
        text = json.dumps({"id": "1", **answers[chosen]})
        await send({"type": "websocket.send", "text": text})


async def late(scope, receive, send):
    """Send after the close, with no framework between."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close"})
        await send({"type": "websocket.send", "text": "late"})


late_framework = FastAPI()


@late_framework.websocket("/")
async def send_late(websocket: WebSocket):
    await websocket.accept()
    await websocket.close()
    await websocket.send_text("late")


async def flooding(scope, receive, send):
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while True:
            await send({"type": "websocket.send", "text": "x"})
            await asyncio.sleep(0)


async def dying(scope, receive, send):
    if scope["type"] == "websocket":
        import os

        os._exit(3)


async def blocking(scope, receive, send):
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        time.sleep(60)


async def never_ending(scope, receive, send):
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (await receive())["type"] != "websocket.disconnect":
            pass
        await asyncio.sleep(60)
