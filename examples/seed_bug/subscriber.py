"""A graphql-transport-ws client that subscribes, reads to the end, and says what it got."""

from __future__ import annotations

import asyncio
import json

from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

QUERY = "subscription { count(to: 3) }"


async def subscribe(url: str, within: float = 5) -> str:
    """Run one subscription; return "complete", or how it failed."""
    try:
        async with asyncio.timeout(within):
            return await _session(url)
    except TimeoutError:
        return f"silent for {within:g} s"
    except (WebSocketException, OSError) as error:
        return type(error).__name__


async def _session(url: str) -> str:
    async with connect(
        url, subprotocols=["graphql-transport-ws"], proxy=None, close_timeout=1, ping_interval=None
    ) as socket:
        await socket.send(json.dumps({"type": "connection_init"}))
        await _until(socket, "connection_ack")
        message = {"id": "1", "type": "subscribe", "payload": {"query": QUERY}}
        await socket.send(json.dumps(message))
        results = await _until(socket, "complete")
        return "complete" if results == 3 else f"{results} results of 3"


async def _until(socket, kind: str) -> int:
    """Read to a message of that type; return how many results came before."""
    results = 0
    while (message := json.loads(await socket.recv()))["type"] != kind:
        results += message["type"] == "next"
    return results
