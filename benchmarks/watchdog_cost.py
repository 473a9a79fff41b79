"""What the watch costs a worker with 10,000 connections: beats and scans, in CPU time.

    python benchmarks/watchdog_cost.py [CONNECTIONS]

The bar is 0.5 % of one core. Every second there are four beats and one scan; every five
seconds the scan looks where 100 connections wait.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import sys
import tempfile
import time
from typing import Any

from ws_lifecycle_metrics import Config, LifecycleMiddleware
from ws_lifecycle_metrics.store.workers import existing

SECONDS = 10.0
BAR = 0.5


async def echo(_scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    while (await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": "x"})


async def connect(app: Any, forever: asyncio.Event) -> None:
    inbox = [{"type": "websocket.receive", "text": "x"}, {"type": "websocket.connect"}]

    async def receive() -> dict[str, Any]:
        if not inbox:
            await forever.wait()
            return {"type": "websocket.disconnect", "code": 1000}
        return inbox.pop()

    async def send(_message: object) -> None: ...

    scope = {"type": "websocket", "asgi": {"version": "3.0"}, "path": "/", "headers": []}
    await app(scope, receive, send)


def used() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


async def measure(connections: int, watched: bool, base: str) -> float:
    """Return the share of a core in % that a worker with idle connections uses."""
    config = Config(service="cost", directory=f"{base}/{watched}")
    app, forever = LifecycleMiddleware(echo, config=config), asyncio.Event()
    tasks = [asyncio.create_task(connect(app, forever)) for _ in range(connections)]
    await asyncio.sleep(2)
    if not watched:
        worker = existing(config)
        assert worker is not None
        worker.watch.heartbeat.loop = None  # no beat, hence no scan
        worker.watch.heartbeat.rest()
    began, cpu = time.perf_counter(), used()
    await asyncio.sleep(SECONDS)
    share = 100 * (used() - cpu) / (time.perf_counter() - began)
    forever.set()
    await asyncio.gather(*tasks)
    return share


def main() -> int:
    logging.disable(logging.ERROR)  # that making so many connections holds up the loop
    connections = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    with tempfile.TemporaryDirectory() as base:
        without = asyncio.run(measure(connections, False, base))
        shares = [asyncio.run(measure(connections, True, base)) for _ in range(3)]
    cost = min(shares) - without
    print(f"{connections} connections: {', '.join(f'{s:.3f} %' for s in shares)} of a core,")
    print(f"without the watch {without:.3f} %: it costs {cost:.3f} %, the bar is {BAR} %")
    return cost > BAR


if __name__ == "__main__":
    sys.exit(main())
