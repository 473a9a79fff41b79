"""Open connections in this process, and asynchronous tests that cannot hang."""

from __future__ import annotations

import asyncio
import functools
import socket
from contextlib import asynccontextmanager, suppress
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from ws_lifecycle_metrics.config import Config
from ws_lifecycle_metrics.middleware import LifecycleMiddleware

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine
    from pathlib import Path

    import httpx

LIMIT = 30.0


def asynchronous(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run an asynchronous test on a loop of its own, for a bounded time."""

    @functools.wraps(test)
    def run(*arguments: Any, **fixtures: Any) -> None:
        asyncio.run(asyncio.wait_for(test(*arguments, **fixtures), LIMIT))

    return run


@asynccontextmanager
async def open_connections(
    directory: Path, *routes: str, service: str = "test", **options: Any
) -> AsyncIterator[LifecycleMiddleware]:
    """Hold a connection on each route: it got "hello", and waits for the next message.

    On a route that ends in `!` the application closed, sent once more, and does not return.
    `options` are those of `Config`.
    """
    waiting = asyncio.Semaphore(0)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await receive()
        await send({"type": "websocket.send", "text": "welcome"})
        if scope["path"].endswith("!"):
            await send({"type": "websocket.close"})
            await send({"type": "websocket.send", "text": "too late"})
            waiting.release()
            await asyncio.Event().wait()
        else:
            await receive()

    config = Config(service=service, directory=str(directory), **options)
    middleware = LifecycleMiddleware(app, config=config)
    tasks = [asyncio.create_task(_converse(middleware, route, waiting)) for route in routes]
    try:
        for _ in routes:
            await waiting.acquire()
        yield middleware
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _converse(
    middleware: LifecycleMiddleware, route: str, waiting: asyncio.Semaphore
) -> None:
    """Be the server of a connection, and tell when nothing is left to be received."""
    events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    events.put_nowait({"type": "websocket.connect"})
    events.put_nowait({"type": "websocket.receive", "text": "hello"})

    async def receive() -> dict[str, Any]:
        if events.empty():
            waiting.release()
        return await events.get()

    async def send(message: Any) -> None:
        pass

    scope = {
        "type": "websocket",
        "asgi": {"version": "3.0"},
        "path": route,
        "headers": [],
        "route": SimpleNamespace(path=route),
    }
    await middleware(scope, receive, send)


@asynccontextmanager
async def dialled(
    http: httpx.AsyncClient, *, buffer: int | None = None
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A raw connection; `buffer` is the size of what the kernel takes in for it."""
    raw = socket.socket()
    raw.setblocking(False)
    if buffer is not None:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    await asyncio.get_running_loop().sock_connect(raw, (http.base_url.host, http.base_url.port))
    reader, writer = await asyncio.open_connection(sock=raw, limit=4096)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
        with suppress(OSError):
            await writer.wait_closed()
