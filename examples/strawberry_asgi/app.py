"""GraphQL subscriptions on plain ASGI with Strawberry, served by uvicorn.

    uvicorn --workers 2 examples.strawberry_asgi.app:app

Both subprotocols of GraphQL over WebSocket are served at any path.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import strawberry
from strawberry.asgi import GraphQL

from ws_lifecycle_metrics import LifecycleMiddleware
from ws_lifecycle_metrics.integrations.strawberry import LifecycleExtension


@strawberry.type
class Query:
    hello: str = "hello"


@strawberry.type
class Subscription:
    @strawberry.subscription
    async def count(self, to: int = 5, every: float = 0.01) -> AsyncGenerator[int, None]:
        for number in range(to):
            yield number
            await asyncio.sleep(every)


# The class, not an instance: each operation gets an extension of its own.
schema = strawberry.Schema(Query, subscription=Subscription, extensions=[LifecycleExtension])
app = LifecycleMiddleware(GraphQL(schema))
