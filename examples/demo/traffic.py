"""The demo's clients: some behave, some vanish, some meet the faulty endpoints."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import socket
import struct
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException
from websockets.typing import Subprotocol

CHATTERS = 12
SUBSCRIBERS = 6
VANISHING = 2
STUCK = 5
"""Connections that the application never ends; no more, so that a long demo does not grow."""

ROOMS = ("lobby", "kitchen", "garden")
LINES = ("hello", "anybody here?", "grüezi", "brb", "did you see that?", "✓")

# Whatever happens to a connection, its client comes back; the metrics tell what happened.
MISHAPS = (OSError, WebSocketException, TimeoutError)

Client = Callable[[str], Coroutine[None, None, None]]


def _dial(url: str, *subprotocols: str) -> connect:
    offered = [Subprotocol(name) for name in subprotocols] or None
    return connect(url, subprotocols=offered, proxy=None, open_timeout=10, close_timeout=5)


async def _chat(client: ClientConnection, messages: int, pause: float) -> None:
    for _ in range(messages):
        await client.send(random.choice(LINES))
        with suppress(TimeoutError):
            async with asyncio.timeout(random.uniform(0.5, 1.5) * pause):
                async for _ in client:  # what the others say
                    pass


async def chatter(url: str) -> None:
    """Chat for a while, then leave with a goodbye."""
    async with _dial(f"{url}/chat/{random.choice(ROOMS)}") as client:
        await _chat(client, random.randint(5, 30), pause=0.8)


async def vanishing(url: str) -> None:
    """Chat a little, then leave without a goodbye: the server's kernel gets an RST."""
    async with _dial(f"{url}/chat/{random.choice(ROOMS)}") as client:
        await _chat(client, 2, pause=0.5)
        raw: socket.socket = client.transport.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.transport.abort()


async def subscriber(url: str) -> None:
    """Subscribe to Strawberry's ticks and read them to the end."""
    async with _dial(f"{url}/graphql", "graphql-transport-ws") as client:
        await client.send(json.dumps({"type": "connection_init"}))
        await client.recv()  # connection_ack
        query = f"subscription {{ ticks(upTo: {random.randint(5, 40)}) }}"
        message = {"id": "1", "type": "subscribe", "payload": {"query": query}}
        await client.send(json.dumps(message))
        async for answer in client:
            if json.loads(answer)["type"] != "next":
                return


async def sent_after_close(url: str) -> None:
    """Meet the application that goes on sending after its own close."""
    async with _dial(f"{url}/sends-after-close") as client:
        async for _ in client:
            pass


async def never_returned(url: str) -> None:
    """Leave the application that does not notice."""
    async with _dial(f"{url}/never-returns") as client:
        await client.send("hello")
        await client.recv()


async def _again_and_again(
    client: Client, url: str, *, pause: float, delay: float = 0, times: int | None = None
) -> None:
    await asyncio.sleep(delay)
    for _ in itertools.count() if times is None else range(times):
        with suppress(*MISHAPS):
            await client(url)
        await asyncio.sleep(random.uniform(0.5, 1.5) * pause)


@asynccontextmanager
async def traffic(url: str) -> AsyncIterator[None]:
    """Keep clients busy with the application at `url` (ws://…) for the length of a block."""
    crowd = [_again_and_again(chatter, url, pause=1, delay=i / 10) for i in range(CHATTERS)]
    crowd += [_again_and_again(subscriber, url, pause=1, delay=i / 10) for i in range(SUBSCRIBERS)]
    crowd += [_again_and_again(vanishing, url, pause=3, delay=i) for i in range(VANISHING)]
    crowd += [
        _again_and_again(sent_after_close, url, pause=2),
        _again_and_again(never_returned, url, pause=10, times=STUCK),
    ]
    tasks = [asyncio.create_task(client) for client in crowd]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    for result in results:
        if isinstance(result, Exception):
            raise result  # a fault of a client is no part of the demo
