"""Django Channels routes on a copy of the scope: the template comes from its own router."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import django
import pytest
from django.conf import settings

from tests.integrations.test_routes import plain, routes, visit
from ws_lifecycle_metrics import Config, LifecycleMiddleware

if TYPE_CHECKING:
    from pathlib import Path

if not settings.configured:  # the same as in tests/graphql/apps.py: a process has them once
    settings.configure(
        ALLOWED_HOSTS=["*"], ROOT_URLCONF="tests.graphql.urls", SECRET_KEY="tests", USE_TZ=True
    )
    django.setup()

from channels.auth import AuthMiddlewareStack
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import AllowedHostsOriginValidator
from django.urls import path, re_path


class Consumer(AsyncWebsocketConsumer):
    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await self.send(text_data=text_data)


class Layer:
    """A middleware of the user's, as they write them."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> Any:
        return await self.app({**scope, "user": "somebody"}, receive, send)


def router() -> Any:
    consumer: Any = Consumer.as_asgi()
    nested = URLRouter([path("room/<int:id>/", consumer), path("lobby/", consumer)])
    return URLRouter(
        [
            path("chat/<slug:room>/", consumer),
            re_path(r"^ws/(?P<name>\w+)/$", consumer),
            path("nested/<str:tenant>/", nested),
            path("nested/<str:tenant>/after/", consumer),
            path("raw/", plain),
            path("", consumer),
        ]
    )


WRAPPERS = {
    "the router": lambda app: app,
    "by protocol": lambda app: ProtocolTypeRouter({"websocket": app}),
    "a layer of the user's": lambda app: ProtocolTypeRouter({"websocket": Layer(app)}),
    "hosts": lambda app: ProtocolTypeRouter({"websocket": AllowedHostsOriginValidator(app)}),
    "three layers": lambda app: Layer(ProtocolTypeRouter({"websocket": Layer(Layer(app))})),
}
PATHS = {
    "/chat/blue/": "chat/<slug:room>/",
    "/ws/name/": r"^ws/(?P<name>\w+)/$",
    "/nested/acme/room/7/": "nested/<str:tenant>/room/<int:id>/",
    "/nested/acme/lobby/": "nested/<str:tenant>/lobby/",
    "/nested/acme/after/": "nested/<str:tenant>/after/",
    "/raw/": "raw/",
    "/": "/",
}


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(service="channels", directory=str(tmp_path))


@pytest.mark.parametrize(("url", "template"), PATHS.items())
@pytest.mark.parametrize("wrapper", WRAPPERS.values(), ids=WRAPPERS)
def test_template(config: Config, wrapper: Any, url: str, template: str) -> None:
    visit(LifecycleMiddleware(wrapper(router()), config=config), url)
    assert routes(config) == {template: 1}


def test_the_empty_path_is_a_route(config: Config) -> None:
    """Its pattern is an empty text, which must not be taken for none."""
    visit(LifecycleMiddleware(router(), config=config), "/")
    assert set(routes(config)) <= {"", "/", "other"}


@pytest.mark.parametrize("url", ["/nowhere/", "/chat/", "/nested/acme/room/x/", "/chat/a/b/"])
def test_path_that_no_route_takes(config: Config, url: str) -> None:
    app = LifecycleMiddleware(router(), config=config)
    with pytest.raises(ValueError, match="No route"):
        visit(app, url)
    assert routes(config) == {"other": 1}


def test_layers_of_channels_own_are_seen_through(config: Config) -> None:
    found = LifecycleMiddleware(
        ProtocolTypeRouter(
            {"websocket": AllowedHostsOriginValidator(AuthMiddlewareStack(router()))}
        )
    ).template({"type": "websocket", "path": "/chat/blue/"})
    assert found == "chat/<slug:room>/"


def test_http_alone_is_no_websocket_router(config: Config) -> None:
    app = LifecycleMiddleware(ProtocolTypeRouter({"http": plain}), config=config)
    assert app.template({"type": "websocket", "path": "/chat/blue/"}) is None


def test_layers_that_go_in_a_circle(config: Config) -> None:
    layer = Layer(None)
    layer.app = layer
    app = LifecycleMiddleware(layer, config=config)
    assert app.template({"type": "websocket", "path": "/"}) is None
