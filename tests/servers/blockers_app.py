"""An application whose handlers do on purpose what hangs event loops and connections.

A text message is JSON, `{"do": NAME, "seconds": S, "until": FIFO}`: a blocker blocks until
somebody has opened and closed the FIFO, for S seconds at most. The answer to "pid" says who serves.
Connections that are to hang take what they do from their path.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import math
import os
import re
import select
import time
from contextlib import suppress
from pathlib import Path

from ws_lifecycle_metrics import LifecycleMiddleware

FREEZES = "BLOCKERS_FREEZE" in os.environ
HANG = 4.0
"""Seconds for which a connection hangs that nobody else lets go on."""
OVER = Path(os.environ.get("WS_LIFECYCLE_DIRECTORY", ".")).with_name("over")
"""Ghosts end when somebody makes this file."""


class Release:
    """Whether a blocker has blocked for long enough."""

    def __init__(self, seconds, fifo):
        self.end = time.monotonic() + seconds
        self.fd = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
        self.poll = select.poll()
        self.poll.register(self.fd)

    def __bool__(self):
        return time.monotonic() >= self.end or bool(self.poll.poll(0))


def sleep(release):
    while not release:
        time.sleep(0.2)


def python(release):
    while not release:
        for _ in range(1_000_000):
            pass


def regex(release):
    took = min(timed(backtrack, 16) for _ in range(5))
    while not release:  # the GIL is held for half a second of work at a time
        backtrack(16 + round(math.log2(0.5 / took)))


def timed(function, argument):
    began = time.perf_counter()
    function(argument)
    return time.perf_counter() - began


def backtrack(size):
    re.match(r"(a+)+$", "a" * size + "b")


class PollFd(ctypes.Structure):
    _fields_ = (("fd", ctypes.c_int), ("events", ctypes.c_short), ("revents", ctypes.c_short))


def gil(release):
    entry = PollFd(release.fd, select.POLLIN)
    left = round((release.end - time.monotonic()) * 1000)
    # PyDLL, unlike CDLL, keeps the GIL during the call.
    ctypes.PyDLL(None).poll(ctypes.byref(entry), 1, left)


BLOCKERS = {"sleep": sleep, "python": python, "regex": regex, "gil": gil}


async def talk(receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    while (event := await receive())["type"] == "websocket.receive":
        wish = json.loads(event["text"])
        if wish["do"] in BLOCKERS:
            release = Release(wish["seconds"], wish["until"])
            BLOCKERS[wish["do"]](release)
            os.close(release.fd)
        await send({"type": "websocket.send", "text": str(os.getpid())})


async def never_answer(receive, send):
    await receive()
    await asyncio.sleep(HANG)  # handshake


async def send_without_end(receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    while True:
        await send({"type": "websocket.send", "bytes": bytes(1 << 20)})  # send_blocked


async def ignore_the_end(receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    while (await receive())["type"] != "websocket.disconnect":
        pass
    await clean_up_slowly()


async def clean_up_slowly():
    await asyncio.sleep(HANG)  # closing


async def deny_and_wait(receive, send):
    await receive()
    await send({"type": "websocket.http.response.start", "status": 403, "headers": []})
    await send({"type": "websocket.http.response.body", "body": b"no\n"})
    with suppress(TimeoutError):  # Granian 2.8.7 delivers no disconnect after a denial
        await asyncio.wait_for(receive(), HANG)  # receive_withheld


async def outlive_the_shutdown(receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    await asyncio.sleep(HANG)  # draining


async def never_listen(receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    while not OVER.exists():  # noqa: ASYNC110  # the test is another process
        await asyncio.sleep(0.1)  # ghost


PATHS = {
    "/handshake": never_answer,
    "/send_blocked": send_without_end,
    "/closing": ignore_the_end,
    "/receive_withheld": deny_and_wait,
    "/draining": outlive_the_shutdown,
    "/ghost": never_listen,
}


async def serve(scope, receive, send):
    match scope["type"]:
        case "websocket":
            await PATHS.get(scope["path"], talk_or_freeze)(receive, send)
        case "lifespan":
            while (await receive())["type"] == "lifespan.startup":
                await send({"type": "lifespan.startup.complete"})
            await send({"type": "lifespan.shutdown.complete"})
        case "http":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"ok\n"})


async def talk_or_freeze(receive, send):
    if FREEZES:  # Granian up to 2.7.8 does when a receive() is in flight at the return
        await freeze(receive, send)
    else:
        await talk(receive, send)


_left = []


async def freeze(receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.send", "text": str(os.getpid())})
    wish = json.loads((await receive())["text"])
    if wish["do"] == "freeze":
        _left.append(asyncio.ensure_future(receive()))
        await asyncio.sleep(0.05)


app = LifecycleMiddleware(serve)
