"""WebSocket clients that know exactly what they did: the other side of the books."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import Counter
from dataclasses import dataclass, field
from itertools import cycle, islice

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

# Every connection sends these; the sizes cross the frame format's three length encodings.
MESSAGES: tuple[str | bytes, ...] = (
    "hello",
    "ünïcödé ✓ 🐍",
    b"\x00\xff" * 40,
    "x" * 300,
    bytes(70_000),
    "",
    b"",
)
ENDS = ("clean", "reset", "server", "reject")


@dataclass
class Tally:
    """Exact counts of one load, as the client saw them; messages by opcode."""

    attempted: int = 0
    accepted: int = 0
    rejected: int = 0
    sent_messages: Counter[str] = field(default_factory=Counter)
    sent_bytes: int = 0
    received_messages: Counter[str] = field(default_factory=Counter)
    received_bytes: int = 0
    ends: Counter[str] = field(default_factory=Counter)

    def sent(self, message: str | bytes) -> None:
        """Book a message to the server."""
        self.sent_messages[_opcode(message)] += 1
        self.sent_bytes += _size(message)

    def received(self, message: str | bytes) -> None:
        """Book a message from the server."""
        self.received_messages[_opcode(message)] += 1
        self.received_bytes += _size(message)


def _opcode(message: str | bytes) -> str:
    return "text" if isinstance(message, str) else "binary"


def _size(message: str | bytes) -> int:
    return len(message.encode() if isinstance(message, str) else message)


def dial(url: str) -> connect:
    """A connection attempt with time-outs, and never through a proxy."""
    return connect(url, proxy=None, open_timeout=20, close_timeout=10, ping_interval=None)


def reset(client: ClientConnection) -> None:
    """Leave without a goodbye: the server's kernel gets an RST."""
    raw = client.transport.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.transport.abort()


async def rejected(url: str) -> int:
    """Try to connect and return the HTTP status of the refusal."""
    try:
        async with dial(url):
            raise AssertionError(f"{url} was accepted")
    except InvalidStatus as refusal:
        return refusal.response.status_code


async def echo(client: ClientConnection, message: str | bytes, tally: Tally) -> None:
    """Send `message` and wait for it to come back, so that both sides have counted it."""
    await client.send(message)
    tally.sent(message)
    answer = await client.recv()
    assert answer == message, f"{message!r:.80} came back as {answer!r:.80}"
    tally.received(answer)


async def server_close(client: ClientConnection, tally: Tally) -> int | None:
    """Ask the example to close, and return the close code that arrived."""
    await client.send("close")
    tally.sent("close")
    try:
        await client.recv()
    except ConnectionClosed:
        return client.close_code
    raise AssertionError("a message came instead of the close")


async def _one(url: str, end: str, messages: tuple[str | bytes, ...], tally: Tally) -> None:
    tally.attempted += 1
    if end == "reject":
        assert await rejected(f"{url}/reject") in {403, 401}
        tally.rejected += 1
    else:
        async with dial(f"{url}/echo") as client:
            tally.accepted += 1
            for message in messages:
                await echo(client, message, tally)
            if end == "reset":
                reset(client)
            elif end == "server":
                assert await server_close(client, tally) == 4001
    tally.ends[end] += 1


async def mixed_load(
    url: str,
    tally: Tally,
    *,
    connections: int = 40,
    concurrency: int = 8,
    ends: tuple[str, ...] = ENDS,
    messages: tuple[str | bytes, ...] = MESSAGES,
    within: float = 60,
) -> None:
    """Open `connections` that end in turn in each of `ends`, booked in `tally`.

    At most `concurrency` are open at a time. Each sends `messages` and reads the echoes before
    it ends, so the books are exact; all of it takes at most `within` s.
    """
    gate = asyncio.Semaphore(concurrency)

    async def bounded(end: str) -> None:
        async with gate:
            await _one(url, end, messages, tally)

    async with asyncio.timeout(within), asyncio.TaskGroup() as group:
        for end in islice(cycle(ends), connections):
            group.create_task(bounded(end))
