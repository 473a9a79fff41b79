"""A tiny server for one WebSocket, in this process: for a user's own asyncio tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote, unquote

from ..protocol import Rule
from .recorder import ASGIApp, Entry, Recorder

_SAFE = "/%:@!$&'()*+,;="  # what a path may have as it is; with % as it may be encoded already


class Rejected(Exception):  # noqa: N818  # an answer, not an error
    """The application closed or denied before an accept."""


class Closed(Exception):  # noqa: N818  # an answer, not an error
    """The application closed; `code` and `reason` are the ones it gave."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"closed with {code}")
        self.code, self.reason = code, reason


class WebSocket:
    """The client's side of one connection; made by `websocket()`. Times are in seconds."""

    def __init__(self, timeout: float) -> None:
        self.entries: list[Entry] = []
        self.subprotocol: str | None = None
        self._timeout = timeout
        self._to_app: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._from_app: asyncio.Queue[dict[str, Any] | asyncio.Task[Any]] = asyncio.Queue()
        self._accepted = self._app_closed = self._gone = False
        self._closed: Closed | None = None
        self._told = False  # the caller has had the application's exception

    @property
    def findings(self) -> list[Rule]:
        """The rules broken so far, in order."""
        return [rule for entry in self.entries for rule in entry.findings]

    async def send(self, message: str | bytes) -> None:
        """Send text or bytes to the application."""
        key = "text" if isinstance(message, str) else "bytes"
        await self._to_app.put({"type": "websocket.receive", key: message})

    async def receive(self) -> str | bytes:
        """Wait for a message; raises `Closed`, the application's own exception, or TimeoutError.

        RuntimeError says that the application has ended, and will send nothing more.
        """
        if self._closed is not None:
            raise self._closed
        event = await self._next()
        if event is None:
            why = "" if self._gone else " without a close"
            raise RuntimeError(f"the application has ended{why}")
        if event["type"] == "websocket.close":
            self._closed = Closed(event.get("code", 1000), event.get("reason") or "")
            raise self._closed
        text: str | None = event.get("text")
        return text if text is not None else bytes(event["bytes"])

    async def close(self, code: int = 1000) -> None:
        """Leave: the application gets its disconnect."""
        if not self._gone:
            self._gone = True
            await self._to_app.put({"type": "websocket.disconnect", "code": code, "reason": ""})

    async def _next(self) -> dict[str, Any] | None:
        """Return what the application sends next, None if it has ended; raises its exception."""
        async with asyncio.timeout(self._timeout):
            event = await self._from_app.get()
        if isinstance(event, dict):
            return event
        self._from_app.put_nowait(event)  # for the next one who asks
        if not event.cancelled() and event.exception() is not None:
            self._told = True
            event.result()
        return None

    async def _asgi_receive(self) -> dict[str, Any]:
        return await self._to_app.get()

    async def _asgi_send(self, message: dict[str, Any]) -> None:
        if self._app_closed:
            raise RuntimeError("the application has closed")
        if self._gone:
            raise OSError("the client is gone")  # ASGI WebSocket, Disconnected Client
        kind = message["type"]
        if self._accepted and kind not in ("websocket.send", "websocket.close"):
            raise RuntimeError(f"a WebSocket that is open takes no {kind}")
        payload = (message.get("text"), message.get("bytes"))
        if kind == "websocket.send" and payload == (None, None):
            raise RuntimeError("a websocket.send has to have text or bytes")
        self._accepted = self._accepted or kind == "websocket.accept"
        await self._from_app.put(message)
        if kind == "websocket.close":
            self._app_closed = True
            await self.close(message.get("code", 1000))

    def _open(self, app: asyncio.Task[Any]) -> None:
        # Its end stands in the queue, so that what it sent before is received first.
        app.add_done_callback(self._from_app.put_nowait)
        self._to_app.put_nowait({"type": "websocket.connect"})

    async def _answered(self) -> None:
        event = await self._next()
        if event is None:
            raise Rejected("the application ended without an answer")
        if event["type"] != "websocket.accept":
            await self.close(1006)
            raise Rejected(f"the application answered with {event['type']}")
        self.subprotocol = event.get("subprotocol")


@asynccontextmanager
async def websocket(
    app: ASGIApp,
    path: str = "/",
    *,
    subprotocols: Iterable[str] = (),
    headers: Iterable[tuple[bytes, bytes]] = (),
    timeout: float = 5.0,  # noqa: ASYNC109  # of each step, so a caller's own cannot replace it
) -> AsyncIterator[WebSocket]:
    """Open a WebSocket on an ASGI application, and leave it at the end of the block.

    Raises `Rejected`; the application's own exception; TimeoutError if it answers not in time,
    or has not ended `timeout` seconds after the client left.
    """
    socket = WebSocket(timeout)
    recorder = Recorder(app, lambda scope: socket.entries.append)
    scope = _scope(path, list(subprotocols), list(headers))
    task = asyncio.ensure_future(recorder(scope, socket._asgi_receive, socket._asgi_send))
    try:
        socket._open(task)
        await socket._answered()
        yield socket
        await socket.close()
        await asyncio.wait({task}, timeout=timeout)
        if not task.done():
            raise TimeoutError(f"the application has not ended {timeout:g} s after the client left")
        if not socket._told:
            task.result()
    finally:
        task.cancel()
        # Never by `await task`: an application may swallow its cancellation.
        await asyncio.wait({task}, timeout=timeout)
        if task.done() and not task.cancelled():
            task.exception()  # it was raised above, or another one was


def _scope(
    path: str, subprotocols: list[str], headers: list[tuple[bytes, bytes]]
) -> dict[str, Any]:
    path, _, query = path.partition("?")
    raw = quote(path, safe=_SAFE)
    return {
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "scheme": "ws",
        "path": unquote(raw),
        "raw_path": raw.encode(),
        "query_string": quote(query, safe=_SAFE + "?").encode(),
        "root_path": "",
        "headers": [(b"host", b"testserver"), *((name.lower(), value) for name, value in headers)],
        "client": ("127.0.0.1", 50000),
        "server": ("127.0.0.1", 8000),
        "subprotocols": subprotocols,
        "state": {},
        "extensions": {"websocket.http.response": {}},
    }
