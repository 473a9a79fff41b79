"""Applications that send after the close, as background tasks do; the policy comes from outside.

Each path is run with the policy of the environment; how it ended is appended to SHIELD_OUTCOME.
"""

from __future__ import annotations

import asyncio
import os

from ws_lifecycle_metrics import LifecycleMiddleware

HUNG_AFTER = 3.0


async def after_close(receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.close", "code": 4409})
    for _ in range(3):
        await send({"type": "websocket.send", "text": "too late"})


async def close_twice(receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.close", "code": 4409})
    await send({"type": "websocket.close", "code": 1000})


async def after_disconnect(receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    while (await receive())["type"] != "websocket.disconnect":
        pass
    await send({"type": "websocket.send", "text": "too late"})


async def close_after_disconnect(receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    while (await receive())["type"] != "websocket.disconnect":
        pass
    await send({"type": "websocket.close"})


async def accept_after_reject(receive, send):
    await receive()
    await send({"type": "websocket.close"})
    await send({"type": "websocket.accept"})


async def accept_and_close_after_reject(receive, send):
    await receive()
    await send({"type": "websocket.close"})
    reader = asyncio.create_task(receive())
    await asyncio.wait([reader], timeout=0.3)  # it is given time to be in receive()
    try:
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close"})
    finally:
        reader.cancel()


SCRIPTS = {
    "/after-close": after_close,
    "/close-twice": close_twice,
    "/after-disconnect": after_disconnect,
    "/close-after-disconnect": close_after_disconnect,
    "/accept-after-reject": accept_after_reject,
    "/accept-and-close-after-reject": accept_and_close_after_reject,
}


async def serve(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})
        return
    if scope["type"] != "websocket":
        raise RuntimeError("no lifespan")
    outcome = "returned"
    try:
        await asyncio.wait_for(SCRIPTS[scope["path"]](receive, send), HUNG_AFTER)
    except TimeoutError:
        outcome = "hung"
    except Exception as error:
        outcome = f"raised {type(error).__name__}"
        raise
    finally:
        with open(os.environ["SHIELD_OUTCOME"], "a") as file:  # a few bytes
            file.write(f"{scope['path']} {outcome}\n")


app = LifecycleMiddleware(serve)
