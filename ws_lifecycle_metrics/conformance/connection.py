"""One WebSocket connection on a bare socket: bytes, frames and messages, and what was seen."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from . import frames
from .frames import Frame
from .handshake import Answer


class Unmet(Exception):  # noqa: N818  # a finding, no error of the client
    """A step's demand was not met: the rule, and what was seen instead."""

    def __init__(self, rule: str, seen: str) -> None:
        super().__init__(f"{rule}: {seen}")
        self.rule, self.seen = rule, seen


@dataclass(frozen=True, slots=True)
class Seen:
    """One line of the client's side; `rule` if it is a finding."""

    at: float
    what: str
    rule: str = ""


@dataclass
class Hooks:
    """What only the runner can do for a client."""

    answers: Callable[[], Awaitable[bool]]
    terminate: Callable[[], None]
    exited: Callable[[], bool]


@dataclass
class Connection:
    """One connection to `host`:`port`; `path` and `run` go into its request."""

    host: str
    port: int
    path: str
    run: str
    hooks: Hooks
    extra_headers: tuple[tuple[str, str], ...] = ()
    seen: list[Seen] = field(default_factory=list)
    over: bool = False
    status: int | None = None
    _socket: socket.socket | None = None
    _buffer: bytearray = field(default_factory=bytearray)
    _parts: list[bytes] = field(default_factory=list)
    _kind: int = 0
    _eof: str = ""
    _key: str = ""
    _silent_close: bool = False

    def note(self, what: str, rule: str = "") -> None:
        """Add a line to what was seen."""
        self.seen.append(Seen(time.monotonic(), what, rule))

    def abandon(self) -> None:
        """Close the socket without a goodbye."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    # --- bytes --------------------------------------------------------------------------------

    async def _connect(self, window: int = 0) -> None:
        raw = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._socket = raw
        raw.setblocking(False)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if window:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
        await asyncio.get_running_loop().sock_connect(raw, (self.host, self.port))

    async def _write(self, data: bytes) -> None:
        if self._socket is None:
            raise ConnectionResetError
        await asyncio.get_running_loop().sock_sendall(self._socket, data)

    async def _more(self) -> bool:
        """Read some bytes into the buffer; False at the end of the connection."""
        if self._eof or self._socket is None:
            return False
        try:
            data = await asyncio.get_running_loop().sock_recv(self._socket, 1 << 18)
        except ConnectionError:
            self._eof, data = "RST", b""
        if not data:
            self._eof = self._eof or "FIN"
            self.over = True
            self.note(f"connection ended by a {self._eof}")
            self.abandon()  # a server may wait for our half
        self._buffer += data
        return bool(data)

    async def _frame(self) -> Frame | None:
        """Return the next frame, None at the end of the connection; notes what is illegal."""
        while (frame := frames.decode(self._buffer)) is None:
            if not await self._more():
                return None
        if frame.wrong:
            self.note(f"received {frame.wrong}", "server.illegal-frame")
        return frame

    async def _message(self) -> str | bytes | Frame | None:
        """Return the next message, a close frame, or None at the end; pings are answered."""
        while (frame := await self._frame()) is not None:
            if frame.opcode == frames.CLOSE:
                return self._got_close(frame)
            if frame.opcode == frames.PING:
                await self._write(frames.encode(frames.PONG, frame.payload))
            elif frame.opcode in (frames.TEXT, frames.BINARY, frames.CONTINUATION):
                self._kind = frame.opcode or self._kind
                self._parts.append(frame.payload)
                if frame.fin:
                    return self._whole()
        return None

    def _whole(self) -> str | bytes:
        data, self._parts = b"".join(self._parts), []
        if self._kind == frames.BINARY:
            return data
        if not frames.is_utf8(data):
            self.note("received text that is no UTF-8", "server.illegal-frame")
        return data.decode(errors="replace")

    def _got_close(self, frame: Frame) -> Frame:
        self.over = True
        code = frames.close_code(frame.payload)
        self.note("received close" + ("" if code is None else f" {code}"))
        return frame

    async def _within(self, seconds: float, wait: Awaitable[Any], rule: str, what: str) -> Any:
        try:
            async with asyncio.timeout(seconds):
                return await wait
        except TimeoutError:
            raise Unmet(rule, f"{what}: not within {seconds:g} s") from None

    async def _answer(self) -> Answer:
        while b"\r\n\r\n" not in self._buffer:
            if len(self._buffer) > 1 << 16 or not await self._more():
                return Answer(None, {})
        head, _, rest = bytes(self._buffer).partition(b"\r\n\r\n")
        self._buffer = bytearray(rest)
        return Answer.parse(head)

    async def _end(self) -> Frame | None:
        while (message := await self._message()) is not None:
            if isinstance(message, Frame):
                return message
        return None

    async def _until_eof(self) -> None:
        """After both close frames: the server ends the TCP connection, or the client does."""

        async def rest() -> None:
            while (frame := await self._frame()) is not None:
                what = f"a frame with opcode {frame.opcode} after the close frame"
                self.note(what, "server.illegal-frame")

        try:
            async with asyncio.timeout(2.0):
                await rest()
        except TimeoutError:
            self.note("TCP left open by the server")
            self.abandon()

    async def _finish(self, end: Frame) -> None:
        """Answer a close frame; then nothing but the end may come."""
        with suppress(ConnectionError):
            await self._write(frames.encode(frames.CLOSE, end.payload[:2]))
        await self._until_eof()
