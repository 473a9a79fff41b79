"""GraphQL subscriptions in a FastAPI application with Strawberry, served by uvicorn.

    uvicorn --workers 2 examples.strawberry_fastapi.app:app

GraphQL is at ``/graphql``, the metrics are at ``/metrics/``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import strawberry
from fastapi import FastAPI
from strawberry.fastapi import GraphQLRouter

from ws_lifecycle_metrics import LifecycleMiddleware, metrics_app
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


schema = strawberry.Schema(Query, subscription=Subscription, extensions=[LifecycleExtension])
app = FastAPI()
app.include_router(GraphQLRouter(schema), prefix="/graphql")
app.add_middleware(LifecycleMiddleware)
app.mount("/metrics", metrics_app())
