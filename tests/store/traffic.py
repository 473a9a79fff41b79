"""A worker process under traffic, without a server: scripted conversations, as fast as it goes."""

from __future__ import annotations

import asyncio
import os
import random
import select
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.store.support import config
from ws_lifecycle_metrics.middleware import LifecycleMiddleware
from ws_lifecycle_metrics.store.workers import current

IDLE = 5
"""Connections that each worker holds open until it is killed."""

SCOPE: dict[str, Any] = {
    "type": "websocket",
    "asgi": {"version": "3.0", "spec_version": "2.4"},
    "http_version": "1.1",
    "scheme": "ws",
    "query_string": b"",
    "root_path": "",
    "headers": [],
    "client": ("127.0.0.1", 40000),
    "server": ("127.0.0.1", 8000),
    "subprotocols": [],
}


async def application(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    if scope["path"] == "/idle":
        scope["opened"]()
        await asyncio.Event().wait()
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"]})


async def converse(app: Any, path: str, opened: Callable[[], None] | None = None) -> None:
    texts = [{"type": "websocket.receive", "text": "hello"}] * 3
    events = iter(
        [{"type": "websocket.connect"}, *texts, {"type": "websocket.disconnect", "code": 1000}]
    )

    async def receive() -> Any:
        await asyncio.sleep(0)
        return next(events)

    async def send(message: Any) -> None:
        pass

    await app({**SCOPE, "path": path, "raw_path": path.encode(), "opened": opened}, receive, send)


async def serve(base: Path, opened: Callable[[], None]) -> None:
    app = LifecycleMiddleware(
        application, config=config(base, route=lambda scope: str(scope["path"]))
    )
    idle = [asyncio.create_task(converse(app, "/idle", opened)) for _ in range(IDLE)]
    while True:
        await asyncio.gather(*(converse(app, "/churn") for _ in range(10)))
        assert not any(task.done() for task in idle)


def fork(work: Callable[[], object]) -> int:
    child = os.fork()
    if child:
        return child
    try:
        work()
    finally:
        os._exit(1)


def kill(child: int) -> None:
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), "the worker ended before it was killed"


def kill_under_traffic(base: Path, kills: int, seed: int = 1) -> None:
    """Have two workers serve at a time, and kill one of them at a random moment, and again."""
    chance = random.Random(seed)
    living: list[int] = []
    for _ in range(kills):
        while len(living) < 2:
            ready, write = os.pipe()
            living.append(fork(lambda w=write: asyncio.run(serve(base, lambda: os.write(w, b".")))))
            os.close(write)
            for _ in range(IDLE):
                assert os.read(ready, 1), "the worker ended before it served"
            os.close(ready)
        select.select([], [], [], chance.uniform(0, 0.03))
        kill(living.pop(chance.randrange(2)))
    for child in living:
        kill(child)


def start_and_serve(base: Path) -> None:
    current(config(base))
    asyncio.run(serve(base, lambda: None))


def kill_at_the_start(base: Path, kills: int, seed: int = 1) -> None:
    """Kill workers in the first milliseconds of their lives."""
    chance = random.Random(seed)
    for _ in range(kills):
        child = fork(lambda: start_and_serve(base))
        end = time.perf_counter() + chance.uniform(0, 0.004)
        while time.perf_counter() < end:
            pass
        kill(child)
