"""The same schema as an application of each framework that Strawberry integrates with."""

from __future__ import annotations

import functools
import warnings
from typing import Any

PATH = "/graphql"
ALL = {
    "subscription_protocols": (
        "graphql-transport-ws",
        "graphql-ws",
        "graphql-sse",
        "multipart-subscription",
    )
}


def asgi(schema: Any, **options: Any) -> Any:
    from strawberry.asgi import GraphQL

    return GraphQL(schema, **ALL, **options)


def fastapi(schema: Any, **options: Any) -> Any:
    from fastapi import FastAPI
    from strawberry.fastapi import GraphQLRouter

    app = FastAPI()
    app.include_router(GraphQLRouter(schema, **ALL, **options), prefix=PATH)
    return app


def channels(schema: Any, **options: Any) -> Any:
    set_up_django()
    from channels.routing import ProtocolTypeRouter, URLRouter
    from django.urls import path
    from strawberry.channels import GraphQLHTTPConsumer, GraphQLWSConsumer

    sockets = GraphQLWSConsumer.as_asgi(schema=schema, **ALL, **options)
    pages = GraphQLHTTPConsumer.as_asgi(schema=schema, **ALL)
    return ProtocolTypeRouter(
        {
            "websocket": URLRouter([path(PATH[1:], sockets)]),
            "http": URLRouter([path(PATH[1:], pages)]),
        }
    )


def litestar(schema: Any, **options: Any) -> Any:
    from litestar import Litestar
    from strawberry.litestar import make_graphql_controller

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Strawberry's controller
        return Litestar([make_graphql_controller(schema, path=PATH, **ALL, **options)])


def django_async(schema: Any) -> Any:
    from strawberry.django.views import AsyncGraphQLView

    return _django(AsyncGraphQLView.as_view(schema=_serving(schema), **ALL))


def django_sync(schema: Any) -> Any:
    from strawberry.django.views import GraphQLView

    return _django(GraphQLView.as_view(schema=_serving(schema)))


def _serving(schema: Any) -> Any:
    set_up_django()
    return schema


def _django(view: Any) -> Any:
    from django.core.asgi import get_asgi_application
    from django.urls import clear_url_caches, path

    from tests.graphql import urls

    urls.urlpatterns[:] = [path(PATH[1:], view)]
    clear_url_caches()
    return get_asgi_application()


def set_up_django() -> None:
    import django
    from django.conf import settings

    if not settings.configured:
        # The same as in tests/integrations/test_channels.py: a process has them once.
        settings.configure(
            ALLOWED_HOSTS=["*"], ROOT_URLCONF="tests.graphql.urls", SECRET_KEY="tests", USE_TZ=True
        )
        django.setup()


@functools.cache
def served(integration: str, *, watched: bool) -> Any:
    """Return an integration's application, with or without the extension; made once."""
    from tests.graphql import schema

    return SOCKETS[integration](schema.observed() if watched else schema.bare())


SOCKETS = {"asgi": asgi, "fastapi": fastapi, "channels": channels, "litestar": litestar}
STREAMS = {**SOCKETS, "django async": django_async}
PAGES = {**SOCKETS, "django async": django_async, "django sync": django_sync}
