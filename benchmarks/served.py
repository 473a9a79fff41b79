"""What the servers of `servers.py` serve: the three applications, each at a path of its own.

One process serves all of them, so that they can be compared; /cpu tells the time of its threads.
"""

from __future__ import annotations

import os
import time
from typing import Any

from .echo import App, echo, noop
from .peers import CANDIDATES

KEY = "BENCH_CANDIDATE"
BARE_PATH, NOOP_PATH, CANDIDATE_PATH, CPU_PATH = "/bare", "/noop", "/candidate", "/cpu"


async def cpu(scope: Any, receive: Any, send: Any) -> None:
    """Answer each message with the CPU time of this process, in ns."""
    await receive()
    await send({"type": "websocket.accept"})
    while (await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": str(time.process_time_ns())})


async def others(scope: Any, receive: Any, send: Any) -> None:
    """Answer the lifespan, and HTTP requests with 404."""
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 404, "headers": []})
        await send({"type": "http.response.body"})
        return
    while (await receive())["type"] == "lifespan.startup":
        await send({"type": "lifespan.startup.complete"})
    await send({"type": "lifespan.shutdown.complete"})


APPS: dict[str, App] = {BARE_PATH: echo, NOOP_PATH: noop(echo), CPU_PATH: cpu}
if KEY in os.environ:
    APPS[CANDIDATE_PATH] = CANDIDATES[os.environ[KEY]].wrap(echo)


def app(scope: Any, receive: Any, send: Any) -> Any:
    """Return the coroutine of the path's application: no frame of ours stands in between."""
    chosen = APPS.get(scope["path"]) if scope["type"] == "websocket" else others
    if chosen is None:
        raise LookupError(scope["path"])
    return chosen(scope, receive, send)
