"""One client's connection: requests in, answers out, with a deadline for each."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import formatdate
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, cast

import h11

from ..config import ExporterConfig
from ..telemetry.logs import log_fault
from .access import Access

if TYPE_CHECKING:
    from .web_config import Terms

MAX_HEADER = 8192
CHUNK = 65536
LINGER = 1.0
"""Seconds in which a refused client may finish talking, so that it reads the refusal."""

# Nothing here is for other sites, for a frame or for a cache; the index adds its own style.
SAFETY = {
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
}
PLAIN = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Request:
    """What a client asked for; header names are lower case, of repeated ones the last stands."""

    method: str
    target: str
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Answer:
    """What it gets."""

    status: int
    body: bytes
    content_type: str = PLAIN
    headers: Mapping[str, str] = field(default_factory=dict)


def refusal(status: int, why: str = "", **headers: str) -> Answer:
    """Return an error as short text; an underscore in a header's name stands for a hyphen."""
    text = why or HTTPStatus(status).phrase
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status, f"{text}\n".encode(), headers=named)


class Client:
    """Serves one connection until either side ends it or a deadline passes."""

    def __init__(
        self,
        config: ExporterConfig,
        access: Access,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._config = config
        self._access = access
        self._reader = reader
        self._writer = writer
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEADER)
        self._begun = False
        self._terms: Terms | None = None  # on which it speaks TLS
        self._head = False  # the request is one for the header alone
        # So that drain() waits until the kernel has all, and a slow reader is noticed.
        writer.transport.set_write_buffer_limits(high=0)
        # TLS begins with the first byte, if it is asked for.
        self._socket = cast("asyncio.Transport", writer.transport)
        self._socket.pause_reading()

    async def serve(self, answer: Callable[[Request], Awaitable[Answer]]) -> None:
        """Answer requests one after another."""
        await self._to_the_end(partial(self._serve, answer))

    async def refuse(self, refused: Answer) -> None:
        """Answer without reading a request."""
        await self._to_the_end(partial(self._refuse, refused))

    async def _to_the_end(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            with suppress(OSError):  # the client left, or a deadline passed (TimeoutError)
                await self._begin()
                await work()
                await self._finish()
        except Exception as error:  # noqa: BLE001  # a fault with one client must not be the others'
            log_fault(error)
        finally:
            # Whatever the kernel has not taken by now is for one who does not read.
            self._writer.transport.abort()
            if self._begun:  # asyncio never tells of the end of a connection within its handshake
                with suppress(OSError):
                    await self._writer.wait_closed()

    async def _begin(self) -> None:
        self._access.refresh()
        async with asyncio.timeout(self._config.header_timeout):
            self._terms = await self._access.secure(self._writer)
        self._begun = True
        if self._terms is not None:
            # This transport is on top of the other one; with 0 it would stop for good.
            self._writer.transport.set_write_buffer_limits(high=1)
        else:
            self._socket.resume_reading()

    async def _finish(self) -> None:
        """Say under TLS that this was the end, or a client must take it for an attack.

        There drain() returns while the socket's transport still holds the last piece.
        """
        if self._terms is not None:
            self._writer.close()
            async with asyncio.timeout(self._config.write_timeout):
                await self._writer.wait_closed()

    async def _refuse(self, refused: Answer) -> None:
        await self._write(refused, last=True)
        await self._linger()

    async def _serve(self, answer: Callable[[Request], Awaitable[Answer]]) -> None:
        deadline = asyncio.get_running_loop().time() + self._config.header_timeout
        while True:
            try:
                request = await self._next_request(deadline)
            except h11.RemoteProtocolError as error:
                return await self._refuse(refusal(error.error_status_hint))
            self._access.refresh()
            if request is None or self._access.terms != self._terms:
                return None
            if self._http.their_state is h11.SEND_BODY:  # it is never read: the connection ends
                return await self._refuse(await answer(request))
            await self._write(await answer(request))
            if self._http.our_state is not h11.DONE:
                return None
            self._http.start_next_cycle()
            deadline = await self._idle()

    async def _idle(self) -> float:
        """Wait for the first bytes of another request; return when it has to be complete."""
        if not self._http.trailing_data[0]:
            async with asyncio.timeout(self._config.idle_timeout):
                await self._feed()
        return asyncio.get_running_loop().time() + self._config.header_timeout

    async def _next_request(self, deadline: float) -> Request | None:
        self._head = False  # as long as nobody knows what is asked for
        async with asyncio.timeout_at(deadline):
            while (event := self._http.next_event()) is h11.NEED_DATA:
                await self._feed()
        if not isinstance(event, h11.Request):
            return None
        self._head = event.method == b"HEAD"
        if self._http.their_state is h11.SEND_BODY:
            self._http.next_event()  # without a body, this is the end of the message
        headers = {name.decode(): value.decode("latin-1") for name, value in event.headers}
        return Request(event.method.decode(), event.target.decode(), headers)

    async def _feed(self) -> None:
        # One byte more than is allowed, so that h11 sees it and refuses.
        room = MAX_HEADER + 1 - len(self._http.trailing_data[0])
        self._http.receive_data(await self._reader.read(max(1, room)))

    async def _write(self, answer: Answer, *, last: bool = False) -> None:
        headers = {
            "Date": formatdate(usegmt=True),
            "Content-Type": answer.content_type,
            "Content-Length": str(len(answer.body)),
            **SAFETY,
            **answer.headers,
            **self._access.headers,
            **({"Connection": "close"} if last else {}),
        }
        head = h11.Response(
            status_code=answer.status,
            headers=list(headers.items()),
            reason=HTTPStatus(answer.status).phrase,
        )
        async with asyncio.timeout(self._config.write_timeout):
            await self._push(self._http.send(head))
            if not self._head:
                # In pieces: what slow readers have not taken yet is one object for all of them.
                for start in range(0, len(answer.body), CHUNK):
                    piece = h11.Data(data=answer.body[start : start + CHUNK])
                    await self._push(self._http.send(piece))
            await self._push(self._http.send(h11.EndOfMessage()))

    async def _push(self, data: bytes | None) -> None:
        if data:
            self._writer.write(data)
            await self._writer.drain()

    async def _linger(self) -> None:
        """Let the client finish: closing on unread data would reset what it has yet to read."""
        if self._writer.can_write_eof():
            self._writer.write_eof()
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER):
                while await self._reader.read(CHUNK):
                    pass
