"""Strawberry on Channels below a middleware that ends connections which had enough results.

It cancels the application, and Strawberry's consumer for Channels leaves the tasks of its
operations behind when that happens: what they subscribed to goes on for nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import strawberry
from django.conf import settings
from django.core.asgi import get_asgi_application
from strawberry.channels import GraphQLProtocolTypeRouter

from ws_lifecycle_metrics import LifecycleMiddleware
from ws_lifecycle_metrics.integrations.strawberry import LifecycleExtension

HANG = 5.0
settings.configure(ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__)
urlpatterns: list[object] = []


@strawberry.type
class Query:
    hello: str = "hi"


@strawberry.type
class Subscription:
    @strawberry.subscription
    async def news(self) -> AsyncGenerator[int, None]:
        yield 0
        await asyncio.sleep(HANG)  # orphan_subscription


schema = strawberry.Schema(Query, subscription=Subscription, extensions=[LifecycleExtension])
graphql = GraphQLProtocolTypeRouter(schema, get_asgi_application())


async def one_result_is_enough(scope, receive, send):
    if scope["type"] != "websocket":
        await graphql(scope, receive, send)
        return
    enough = asyncio.Event()

    async def counting(message):
        await send(message)
        if '"next"' in message.get("text", ""):
            enough.set()

    serving = asyncio.ensure_future(graphql(scope, receive, counting))
    await asyncio.wait(
        [serving, waiting := asyncio.ensure_future(enough.wait())],
        return_when=asyncio.FIRST_COMPLETED,
    )
    waiting.cancel()
    serving.cancel()
    await asyncio.wait([serving])
    await send({"type": "websocket.close", "code": 4008})


app = LifecycleMiddleware(one_result_is_enough)
