"""A GraphQL subscription on Strawberry's Channels consumer, as the bug's reporters had it.

granian --interface asgi examples.seed_bug.app:app     observed by the middleware
granian --interface asgi examples.seed_bug.app:bare    with nothing between
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import django
import strawberry
from channels.routing import ProtocolTypeRouter, URLRouter
from django.conf import settings

settings.configure(ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, INSTALLED_APPS=["channels"])
django.setup()

from django.core.asgi import get_asgi_application  # noqa: E402  # Django asks for this order
from django.urls import path  # noqa: E402  # Django asks for this order
from strawberry.channels import GraphQLWSConsumer  # noqa: E402  # needs the set-up, too

from ws_lifecycle_metrics import LifecycleMiddleware  # noqa: E402  # keeps the groups apart

urlpatterns: list[object] = []


@strawberry.type
class Query:
    hello: str = "world"


@strawberry.type
class Subscription:
    @strawberry.subscription
    async def count(self, to: int = 3) -> AsyncGenerator[int, None]:
        for number in range(to):
            await asyncio.sleep(0.01)
            yield number


async def forgetful(scope, receive, send):
    """Accept, leave a receive() in flight, and return: what froze Granian before 2.7.9."""
    await receive()
    await send({"type": "websocket.accept"})
    forgetful.pending = asyncio.ensure_future(receive())
    await asyncio.sleep(0.1)


schema = strawberry.Schema(Query, subscription=Subscription)
graphql = path("graphql", GraphQLWSConsumer.as_asgi(schema=schema))
sockets = URLRouter([graphql, path("forgetful", forgetful)])
bare = ProtocolTypeRouter({"http": get_asgi_application(), "websocket": sockets})
app = LifecycleMiddleware(bare)
