"""The scripted client: one method a verb of the scripts' client side."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from contextlib import suppress
from typing import Any

from ..labels import plural
from . import frames
from .connection import Connection, Hooks, Seen, Unmet
from .frames import Frame
from .handshake import request_bytes
from .script import Step

STEP_SECONDS = 6.0
"""The time that a server has for what a step waits for."""


class Client(Connection):
    """Plays a scenario's client side."""

    async def play(self, script: tuple[Step, ...]) -> None:
        """Play the steps until the first demand that is not met, which becomes a finding."""
        try:
            for step in script:
                await getattr(self, f"do_{step.verb}")(**step.options)
        except Unmet as unmet:
            self.note(unmet.seen, unmet.rule)
        except (ConnectionError, BrokenPipeError) as error:
            self.over = True
            self.note(f"connection lost while sending ({type(error).__name__})")

    # --- the handshake ------------------------------------------------------------------------

    async def do_request(
        self,
        path: str = "",
        subprotocols: tuple[str, ...] = (),
        headers: tuple[tuple[str, str], ...] = (),
        window: int = 0,
    ) -> None:
        """Send the request of a handshake, and do not wait for its answer."""
        await self._connect(window)
        self._key = frames.new_key()
        request = request_bytes(
            f"{self.host}:{self.port}",
            self.path + path,
            self.run,
            self._key,
            subprotocols,
            (*self.extra_headers, *headers),
        )
        self.note("request sent")
        await self._write(request)

    async def do_response(
        self,
        status: int,
        chosen: str | None = None,
        answered: dict[str, str] | None = None,
        forbidden: str = "",
        within: float = STEP_SECONDS,
    ) -> None:
        """Read the answer: `status` must be it; 0: any refusal; -1: whatever it is."""
        answer = await self._within(
            within, self._answer(), "server.handshake-unanswered", "answer to the handshake"
        )
        self.status = answer.status
        self.note(f"answer {answer.status or 'none'}")
        if forbidden and forbidden in answer.headers:
            raise Unmet("server.header-injected", f"the answer has the header {forbidden}")
        problem = answer.problem(status, self._key, chosen, answered or {})
        if problem is not None:
            raise Unmet(*problem)
        if status == 0 or status > 101:  # as real clients do after a refusal
            self.over = True
            self.abandon()

    async def do_open(self, status: int, **options: Any) -> None:
        """Send the request and read its answer."""
        reading = ("chosen", "answered", "forbidden", "within")
        await self.do_request(**{k: v for k, v in options.items() if k not in reading})
        await self.do_response(status, **{k: v for k, v in options.items() if k in reading})

    # --- messages -----------------------------------------------------------------------------

    async def do_text(self, message: str) -> None:
        """Send a text."""
        self.note(f"send text of {len(message.encode())} bytes")
        await self._write(frames.encode(frames.TEXT, message.encode()))

    async def do_binary(self, message: bytes) -> None:
        """Send bytes."""
        self.note(f"send binary of {len(message)} bytes")
        await self._write(frames.encode(frames.BINARY, message))

    async def do_burst(self, messages: tuple[str, ...]) -> None:
        """Send many texts at once."""
        self.note(f"send {len(messages)} texts")
        await self._write(b"".join(frames.encode(frames.TEXT, m.encode()) for m in messages))

    async def do_frame(self, opcode: int, payload: bytes, **options: Any) -> None:
        """Send one frame as it is given."""
        self.note(f"send frame with opcode {opcode} of {len(payload)} bytes")
        await self._write(frames.encode(opcode, payload, **options))

    async def do_expect(self, messages: tuple[str | bytes, ...]) -> None:
        """Wait for these messages."""
        for number, message in enumerate(messages):
            what = f"message {number + 1} of {len(messages)}"
            got = await self._within(STEP_SECONDS, self._message(), "server.message-lost", what)
            if got != message:
                kind = "close or end" if got is None or isinstance(got, Frame) else "another one"
                raise Unmet("server.message-lost", f"{what}: {kind} came")
        self.note(f"received {plural(len(messages), 'message')} as expected")

    async def do_swallow(self, size: int) -> None:
        """Read binary messages until they add up to `size`."""

        async def swallow() -> int:
            total = 0
            while total < size and isinstance(message := await self._message(), bytes):
                total += len(message)
            return total

        got = await self._within(30, swallow(), "server.message-lost", f"{size} bytes")
        if got != size:
            raise Unmet("server.message-lost", f"{got} of {size} bytes came")
        self.note(f"received {size} bytes")

    async def do_drained(self, seconds: float = 0.5) -> None:
        """Read what comes for a short while; only illegal frames are judged."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while (await self._message()) is not None:
                    pass

    async def do_pong(self) -> None:
        """Send a ping and wait for its pong."""
        await self._write(frames.encode(frames.PING, b"are you there"))
        self.note("send ping")

        async def pong() -> bool:
            while (frame := await self._frame()) is not None:
                if frame.opcode == frames.PONG and frame.payload == b"are you there":
                    return True
            return False

        if not await self._within(3.0, pong(), "server.pong-missing", "pong"):
            raise Unmet("server.pong-missing", "the connection ended instead of a pong")
        self.note("received pong")

    # --- the end ------------------------------------------------------------------------------

    async def do_close(self, code: int | None, reason: str = "") -> None:
        """Close, and wait for the server's close frame or the end."""
        payload = b"" if code is None else code.to_bytes(2, "big") + reason.encode()
        self.note("send close" + ("" if code is None else f" {code}"))
        await self._write(frames.encode(frames.CLOSE, payload))
        end = await self._within(
            STEP_SECONDS, self._end(), "server.socket-left-open", "end after the close"
        )
        if end is not None:
            await self._until_eof()

    async def do_closed(
        self, codes: tuple[int, ...], reason: str | None, answer: bool = True
    ) -> None:
        """Wait for a close frame, judge it, answer it, and wait for the connection's end."""
        end = await self._within(
            STEP_SECONDS, self._end(), "server.socket-left-open", "close frame"
        )
        if end is None:
            raise Unmet("server.close-missing", "no close frame before the end")
        code = frames.close_code(end.payload)
        if codes and code not in codes:
            raise Unmet("server.close-code-wrong", f"close {code} instead of {codes[0]}")
        if reason is not None and end.payload[2:] != reason.encode():
            raise Unmet("server.close-reason-wrong", "another reason, or none")
        if answer:
            await self._finish(end)

    async def do_over(self, within: float | None = None) -> None:
        """Wait for the end, by a close frame or without."""
        seconds = STEP_SECONDS if within is None else within
        end = await self._within(seconds, self._end(), "server.socket-left-open", "end")
        if end is not None:
            await self._finish(end)

    async def do_failed(self) -> None:
        """Wait for the end that an illegal frame of ours must bring."""
        rule = "server.client-error-tolerated"
        end = await self._within(STEP_SECONDS, self._end(), rule, "end after an illegal frame")
        if end is not None:
            await self._finish(end)

    async def do_reset(self) -> None:
        """Leave: the server's kernel gets an RST."""
        self.note("RST")
        if self._socket is not None:
            linger = struct.pack("ii", 1, 0)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.over = True
        self.abandon()

    async def do_fin(self) -> None:
        """End the sending half: the server's kernel gets a FIN."""
        self.note("FIN")
        self.over = True
        if self._socket is not None:
            with suppress(OSError):  # the server may have been faster
                self._socket.shutdown(socket.SHUT_WR)

    async def do_pause(self, seconds: float) -> None:
        """Do nothing."""
        await asyncio.sleep(seconds)

    # --- the server ---------------------------------------------------------------------------

    async def do_alive(self) -> None:
        """See whether the server answers somebody else."""
        if not await self.hooks.answers():
            raise Unmet("server.worker-frozen", "no answer to another client")
        self.note("another client is answered")

    async def do_terminate(self) -> None:
        """Send SIGTERM to the server."""
        self.note("SIGTERM to the server")
        self.hooks.terminate()

    async def do_exited(self, within: float = 12.0) -> None:
        """Wait until the server has exited."""
        deadline = time.monotonic() + within
        while not self.hooks.exited():
            if time.monotonic() > deadline:
                raise Unmet("server.shutdown-hangs", f"still running {within:g} s after SIGTERM")
            await asyncio.sleep(0.05)
        self.note("the server has exited")


__all__ = ["STEP_SECONDS", "Client", "Hooks", "Seen", "Unmet"]
