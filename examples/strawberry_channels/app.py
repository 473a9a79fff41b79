"""GraphQL subscriptions on Django Channels with Strawberry, served by Daphne or by Granian.

At ``/graphql``, by one of:
    daphne examples.strawberry_channels.app:app
    granian --interface asgi --workers 2 examples.strawberry_channels.app:app
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

settings.configure(ALLOWED_HOSTS=["127.0.0.1", "localhost"], ROOT_URLCONF=__name__)
urlpatterns = []


@strawberry.type
class Query:
    hello: str = "hi"


@strawberry.type
class Subscription:
    @strawberry.subscription
    async def count(self, to: int = 5, every: float = 0.01) -> AsyncGenerator[int, None]:
        for number in range(to):
            yield number
            await asyncio.sleep(every)


schema = strawberry.Schema(Query, subscription=Subscription, extensions=[LifecycleExtension])
app = LifecycleMiddleware(GraphQLProtocolTypeRouter(schema, get_asgi_application(), "^graphql"))
