"""A worker with traffic of all kinds: python -m tests.otel.worker DIRECTORY NUMBER [hang].

It says "ready" once everything is counted, and then serves nothing more until stdin ends.
"""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from opentelemetry.sdk.trace import TracerProvider

from benchmarks.host import MIXED, operate
from tests.telemetry.harness import ACCEPT, CONNECT, DISCONNECT, echo, say, text, websocket
from ws_lifecycle_metrics import Config, LifecycleMiddleware

REJECT = {"type": "websocket.close", "code": 4403}


async def rejects(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send(REJECT)


async def breaks(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send(ACCEPT)
    await send({"type": "websocket.send", "bytes": b"\x00" * 100})
    await send({"type": "websocket.close", "code": 4409})
    with suppress(OSError):
        await send(say("too late"))


async def fails(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send(ACCEPT)
    raise LookupError


async def waits(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept", "subprotocol": "graphql-transport-ws"})
    await receive()
    await operate(MIXED)
    await asyncio.Event().wait()


async def slow(message: Any) -> None:
    if message.get("text") == "slow":
        await asyncio.sleep(0.03)


async def main(directory: str, number: int) -> list[asyncio.Task[None]]:
    config = Config(
        directory=directory,
        service="parity",
        route=lambda scope: scope["path"],
        tracer_provider=TracerProvider(shutdown_on_exit=False),
    )
    tasks = []
    for app, path, events in [
        *[(echo, "/echo", [CONNECT, text("ä"), text("slow"), DISCONNECT])] * number,
        (rejects, "/private", [CONNECT]),
        (breaks, "/breaks", [CONNECT]),
        (fails, "/fails", [CONNECT]),
        (waits, "/waits", [CONNECT, text()]),
        (echo, f"/worker/{number}", [CONNECT]),
    ]:
        queue: asyncio.Queue[Any] = asyncio.Queue()
        for event in events:
            queue.put_nowait(event)
        scope = websocket(path=path, subprotocols=["graphql-transport-ws"])
        run = LifecycleMiddleware(app, config=config)(scope, queue.get, slow)
        tasks.append(asyncio.ensure_future(run))
    await asyncio.wait(tasks, timeout=1)
    return tasks


async def serve() -> None:
    directory, number, *hang = sys.argv[1:]
    tasks = await main(directory, int(number))
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    if hang:
        time.sleep(600)  # that is what a worker that hangs does
    await asyncio.to_thread(sys.stdin.read)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


if __name__ == "__main__":
    Path(sys.argv[1]).mkdir(exist_ok=True, parents=True)
    asyncio.run(serve())
