"""Applications that send after the close, as background tasks do; the policy comes from outside.

`/after-close`, `/close-twice`, `/after-disconnect` and `/accept-after-reject` are run with the
policy of the environment; the outcome is appended to SHIELD_OUTCOME.
"""

from __future__ import annotations

import os

from ws_lifecycle_metrics import LifecycleMiddleware


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


async def accept_after_reject(receive, send):
    await receive()
    await send({"type": "websocket.close"})
    await send({"type": "websocket.accept"})


SCRIPTS = {
    "/after-close": after_close,
    "/close-twice": close_twice,
    "/after-disconnect": after_disconnect,
    "/accept-after-reject": accept_after_reject,
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
        await SCRIPTS[scope["path"]](receive, send)
    except Exception as error:
        outcome = f"raised {type(error).__name__}"
        raise
    finally:
        with open(os.environ["SHIELD_OUTCOME"], "a") as file:  # a few bytes
            file.write(f"{scope['path']} {outcome}\n")


app = LifecycleMiddleware(serve)
