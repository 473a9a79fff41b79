"""The demo's application: FastAPI and Strawberry, two healthy endpoints and two faulty ones.

granian --interface asgi --workers 2 examples.demo.app:app
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from typing import Any

import strawberry
from fastapi import FastAPI, WebSocket
from starlette.websockets import WebSocketState
from strawberry.fastapi import GraphQLRouter
from strawberry.subscriptions import GRAPHQL_TRANSPORT_WS_PROTOCOL

from ws_lifecycle_metrics import LifecycleMiddleware

api = FastAPI(title="ws-lifecycle-metrics demo")
rooms: defaultdict[str, set[WebSocket]] = defaultdict(set)  # of this worker


@api.websocket("/chat/{room}")
async def chat(websocket: WebSocket, room: str) -> None:
    """Healthy: hand every message on to all who are in the room."""
    await websocket.accept()
    members = rooms[room]
    members.add(websocket)
    try:
        async for text in websocket.iter_text():
            for member in tuple(members):
                if member in members:  # it may leave while another one is sent to
                    await member.send_text(text)
    finally:
        members.discard(websocket)


@strawberry.type
class Query:
    @strawberry.field
    def hello(self) -> str:
        return "subscribe to ticks(upTo: 10)"


@strawberry.type
class Subscription:
    @strawberry.subscription
    async def ticks(self, up_to: int) -> AsyncIterator[int]:
        """Healthy: count, twice a second."""
        for tick in range(1, up_to + 1):
            yield tick
            await asyncio.sleep(0.5)


@api.websocket("/sends-after-close")
async def sends_after_close(websocket: WebSocket) -> None:
    """Faulty: a publisher that nobody tells of the close; Granian drops the message in silence."""
    await websocket.accept()
    await websocket.send_text("first result")
    await websocket.close(4000, "enough")
    # Starlette's object would refuse; plain ASGI and Django Channels pass it on, as happens here.
    websocket.application_state = WebSocketState.CONNECTED
    await websocket.send_text("one more result")


@api.websocket("/never-returns")
async def never_returns(websocket: WebSocket) -> None:
    """Faulty: after the disconnect it waits for an answer that nobody will give."""
    await websocket.accept()
    async for text in websocket.iter_text():
        await websocket.send_text(text)
    await asyncio.Event().wait()


schema = strawberry.Schema(Query, subscription=Subscription)
graphql: GraphQLRouter[Any, Any] = GraphQLRouter(
    schema, subscription_protocols=[GRAPHQL_TRANSPORT_WS_PROTOCOL]
)
api.include_router(graphql, prefix="/graphql")

app = LifecycleMiddleware(api)
