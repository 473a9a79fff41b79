"""An application whose handlers do on purpose what hangs event loops and connections.

A text message is JSON, `{"do": NAME, "seconds": S}`; the answer to "pid" says who serves.
Connections that are to hang take what they do from their path.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import math
import os
import re
import time

from ws_lifecycle_metrics import LifecycleMiddleware

SILENT = os.environ.get("BLOCKERS_SILENT")


def sleep(seconds):
    time.sleep(seconds)


def python(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def regex(seconds):
    began = time.monotonic()
    re.match(r"(a+)+$", "a" * 18 + "b")
    more = math.log2(seconds / (time.monotonic() - began))
    re.match(r"(a+)+$", "a" * (18 + math.ceil(more)) + "b")


def gil(seconds):
    # PyDLL, unlike CDLL, keeps the GIL during the call.
    ctypes.PyDLL(None).poll(None, 0, int(seconds * 1000))


BLOCKERS = {"sleep": sleep, "python": python, "regex": regex, "gil": gil}


async def talk(receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    while (event := await receive())["type"] == "websocket.receive":
        wish = json.loads(event["text"])
        if wish["do"] in BLOCKERS:
            BLOCKERS[wish["do"]](wish["seconds"])
        await send({"type": "websocket.send", "text": str(os.getpid())})


async def never_answer(receive, send):
    await receive()
    await asyncio.sleep(3600)  # handshake


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
    await clean_up_for_ever()


async def clean_up_for_ever():
    await asyncio.Event().wait()  # closing


async def close_and_wait(receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.close", "code": 4000})
    while (await receive())["type"] != "websocket.disconnect":  # receive_withheld
        pass


async def outlive_the_shutdown(receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    await asyncio.sleep(3600)  # draining


PATHS = {
    "/handshake": never_answer,
    "/send_blocked": send_without_end,
    "/closing": ignore_the_end,
    "/receive_withheld": close_and_wait,
    "/draining": outlive_the_shutdown,
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
    if SILENT is None:
        await talk(receive, send)
    else:  # Granian up to 2.7.8 freezes when a receive() is in flight at the return
        await freeze(receive, send)


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
