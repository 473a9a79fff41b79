"""Applications that the tests of the driver and of the fixture share."""

from __future__ import annotations


async def echo(scope, receive, send):
    await receive()
    await send({"type": "websocket.accept", "subprotocol": "chat"})
    while (event := await receive())["type"] == "websocket.receive":
        if event.get("text") == "close":
            await send({"type": "websocket.close", "code": 4001, "reason": "asked"})
            return
        await send({**event, "type": "websocket.send"})
