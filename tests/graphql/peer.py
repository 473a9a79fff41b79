"""A server and a GraphQL client in one, in this process: what it sends and gets is recorded."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import Any

from tests.graphql.apps import PATH

TRANSPORT_WS, LEGACY = "graphql-transport-ws", "graphql-ws"
PROTOCOLS = (TRANSPORT_WS, LEGACY)
_WORDS = {  # of graphql-transport-ws, to those of its predecessor
    TRANSPORT_WS: {"subscribe": "subscribe", "complete": "complete", "next": "next"},
    LEGACY: {"subscribe": "start", "complete": "stop", "next": "data"},
}
SECONDS = 5


def scope(kind: str, **fields: Any) -> dict[str, Any]:
    return {
        "type": kind,
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "scheme": "ws" if kind == "websocket" else "http",
        "path": PATH,
        "raw_path": PATH.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [(b"host", b"test")],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
        "extensions": {},
        "state": {},
        **fields,
    }


class Peer:
    """One WebSocket connection; the application runs in a task from `open` to `end`."""

    def __init__(self, app: Any, protocol: str) -> None:
        self.app, self.protocol = app, protocol
        self.sent: list[Any] = []
        self.refuse: type[Exception] | None = None
        self.refuse_after = 0
        self._events: asyncio.Queue[Any] = asyncio.Queue()
        self._frames: asyncio.Queue[Any] = asyncio.Queue()
        self.task: asyncio.Task[None]

    async def _send(self, message: Any) -> None:
        results = sum(m["type"] == "websocket.send" for m in self.sent)
        if self.refuse and message["type"] == "websocket.send" and results >= self.refuse_after:
            self._frames.put_nowait(None)
            raise self.refuse("by the test")
        self.sent.append(message)
        self._frames.put_nowait(message)
        if message["type"] == "websocket.close":
            self.leave(message.get("code", 1000))

    async def open(self) -> None:
        self._events.put_nowait({"type": "websocket.connect"})
        served = scope("websocket", subprotocols=[self.protocol])
        self.task = asyncio.create_task(self.app(served, self._events.get, self._send))
        assert (await self.message())["type"] == "websocket.accept"

    async def initialised(self) -> None:
        await self.open()
        self.say(type="connection_init")
        assert (await self.frame())["type"] == "connection_ack"

    def say(self, **message: Any) -> None:
        self.text(json.dumps(message))

    def text(self, text: str) -> None:
        self._events.put_nowait({"type": "websocket.receive", "text": text})

    def binary(self, data: bytes) -> None:
        self._events.put_nowait({"type": "websocket.receive", "bytes": data})

    def subscribe(self, query: str, id: Any = "1", **payload: Any) -> None:
        kind = _WORDS[self.protocol]["subscribe"]
        self.say(id=id, type=kind, payload={"query": query, **payload})

    def complete(self, id: Any = "1") -> None:
        self.say(id=id, type=_WORDS[self.protocol]["complete"])

    def leave(self, code: int = 1000) -> None:
        self._events.put_nowait({"type": "websocket.disconnect", "code": code})

    async def message(self) -> Any:
        return await asyncio.wait_for(self._frames.get(), SECONDS)

    async def frame(self) -> Any:
        message = await self.message()
        return json.loads(message["text"]) if "text" in message else message

    async def until(self, kind: str) -> Any:
        """Read frames up to one of this type, or to the close."""
        kind = _WORDS[self.protocol].get(kind, kind) if kind == "next" else kind
        while (frame := await self.frame())["type"] not in (kind, "websocket.close"):
            pass
        return frame

    async def end(self) -> str:
        """Wait until the application has ended; say how."""
        await asyncio.wait([self.task], timeout=SECONDS)
        if not self.task.done():
            self.task.cancel()
            await asyncio.wait([self.task], timeout=SECONDS)
            return "hung"
        if self.task.cancelled():
            return "cancelled"
        error = self.task.exception()
        return "returned" if error is None else f"raised {type(error).__name__}"


class Request:
    """One HTTP request; its response may be a stream."""

    def __init__(self, app: Any, body: object, accept: str = "application/json") -> None:
        self.app, self.status, self.body = app, 0, b""
        self.refuse: BaseException | None = None
        data = json.dumps(body).encode()
        self._headers = [
            (b"host", b"test"),
            (b"accept", accept.encode()),
            (b"content-type", b"application/json"),
            (b"content-length", str(len(data)).encode()),
        ]
        self._events: asyncio.Queue[Any] = asyncio.Queue()
        self._events.put_nowait({"type": "http.request", "body": data, "more_body": False})
        self.leave_after = 0
        self.patience = float(SECONDS)
        self._parts = 0

    async def _send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            return
        if not message.get("more_body"):
            self._events.put_nowait({"type": "http.disconnect"})  # as servers say it is complete
        if not message.get("body"):
            return
        self._parts += 1
        if self.refuse and self._parts > 1:
            raise self.refuse
        self.body += message["body"]
        if self._parts == self.leave_after:
            self._events.put_nowait({"type": "http.disconnect"})

    async def run(self) -> None:
        served = scope("http", method="POST", headers=self._headers)
        with suppress(asyncio.CancelledError):
            await asyncio.wait_for(self.app(served, self._events.get, self._send), self.patience)
