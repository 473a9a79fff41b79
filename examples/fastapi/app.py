"""A FastAPI application with two WebSocket routes, served by uvicorn.

    uvicorn --workers 2 examples.fastapi.app:app

Routes are labelled by their template: every room is ``/rooms/{room}``, never its own series.
"""

from __future__ import annotations

from fastapi import FastAPI, WebSocket

from ws_lifecycle_metrics import LifecycleMiddleware, metrics_app

app = FastAPI()
app.add_middleware(LifecycleMiddleware)
app.mount("/metrics", metrics_app())  # convenient; the sidecar also answers when a worker hangs


@app.websocket("/echo")
@app.websocket("/rooms/{room}")
async def echo(websocket: WebSocket):
    await websocket.accept()
    while True:
        match await websocket.receive():
            case {"type": "websocket.disconnect"}:
                return
            case {"text": "close"}:
                await websocket.close(4001)
                return
            case {"text": str(text)}:
                await websocket.send_text(text)
            case {"bytes": bytes(data)}:
                await websocket.send_bytes(data)


@app.websocket("/reject")
async def reject(websocket: WebSocket):
    await websocket.close()  # before the accept: the client's handshake gets a 403
