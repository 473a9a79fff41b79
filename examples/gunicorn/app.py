"""An echo on plain ASGI, served by gunicorn with its own ASGI worker or with uvicorn's.

    gunicorn --worker-class asgi --workers 2 examples.gunicorn.app:app
    gunicorn --worker-class uvicorn_worker.UvicornWorker --workers 2 examples.gunicorn.app:app

The first needs gunicorn 24 or newer, the second the package uvicorn-worker.
"""

from __future__ import annotations

from ws_lifecycle_metrics import LifecycleMiddleware


async def echo(scope, receive, send):
    await receive()  # websocket.connect
    if scope["path"] == "/reject":
        await send({"type": "websocket.close"})  # before the accept: a rejection
        return
    await send({"type": "websocket.accept"})
    while (event := await receive())["type"] == "websocket.receive":
        if event.get("text") == "close":
            await send({"type": "websocket.close", "code": 4001})
            return
        await send({**event, "type": "websocket.send"})


async def serve(scope, receive, send):
    match scope["type"]:
        case "websocket":
            await echo(scope, receive, send)
        case "lifespan":
            while (await receive())["type"] == "lifespan.startup":
                await send({"type": "lifespan.startup.complete"})
            await send({"type": "lifespan.shutdown.complete"})
        case "http":
            await send({"type": "http.response.start", "status": 426, "headers": []})
            await send({"type": "http.response.body", "body": b"a WebSocket, please\n"})


app = LifecycleMiddleware(serve)
