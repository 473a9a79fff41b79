"""The route label is the framework's template: real frameworks, driven in this process."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from fastapi import APIRouter, Depends, FastAPI
from fastapi import WebSocket as FastAPISocket
from litestar import Litestar, Router, WebSocket, asgi, websocket
from starlette.applications import Starlette
from starlette.endpoints import WebSocketEndpoint
from starlette.middleware import Middleware
from starlette.routing import Host, Mount, WebSocketRoute
from starlette.routing import Router as StarletteRouter

from tests.support import (
    ACCEPT,
    CONNECT,
    DISCONNECT,
    Peer,
    books,
    scope,
    totals,
    unbalanced,
)
from ws_lifecycle_metrics import Config, LifecycleMiddleware

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(service="routes", directory=str(tmp_path))


def visit(wrapped: Any, /, *paths: str, **fields: Any) -> list[Any]:
    """Connect to each path and leave; return what the application sent."""
    sent: list[Any] = []

    async def main() -> None:
        for path in paths:
            peer = Peer([CONNECT, {"type": "websocket.receive", "text": "hi"}, DISCONNECT])
            got = scope(path=path, raw_path=path.encode(), **fields)
            with anyio.fail_after(10):
                await wrapped(got, peer.receive, peer.send)
            sent.extend(peer.sent)

    anyio.run(main)
    return sent


def routes(config: Config) -> dict[str, float]:
    """Return the handshakes by route; the messages must have followed them."""
    found = books(config)
    assert unbalanced(found, int(totals(found, "handshakes"))) == []
    names = {key[1] for key in found if key[0] == "handshakes"}
    return {
        name: sum(v for k, v in found.items() if k[:2] == ("handshakes", name)) for name in names
    }


async def plain(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send(ACCEPT)
    while (await receive())["type"] != "websocket.disconnect":
        pass


async def chat(ws: Any) -> None:
    await ws.accept()
    await ws.receive_text()
    await ws.close()


# Starlette.


class Endpoint(WebSocketEndpoint):
    encoding = "text"


class Layer:
    """A middleware that says nothing of the routes behind it."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app(scope, receive, send)


def leaf() -> WebSocketRoute:
    async def talk(ws: Any) -> None:
        await chat(ws)

    return WebSocketRoute("/leaf", talk)


def starlette(**options: Any) -> Starlette:
    table = [
        WebSocketRoute("/chat/{room}", chat),
        WebSocketRoute("/files/{path:path}", chat),
        WebSocketRoute("/class", Endpoint),
        WebSocketRoute("/asgi", plain_endpoint),
        Mount("/api", routes=[WebSocketRoute("/v1/{id:int}", chat)], name="api"),
        Mount("/t/{tenant}", routes=[WebSocketRoute("/chat/{room}", chat)]),
        Mount("/sub", app=Starlette(routes=[WebSocketRoute("/chat/{room}", chat)])),
        Mount("/raw", app=plain),
        *(Mount(f"/layer/{n}", app=Layer(Starlette(routes=[leaf()]))) for n in (1, 2)),
    ]
    return Starlette(routes=table, **options)


async def plain_endpoint(ws: Any) -> None:
    await chat(ws)


STARLETTE = {
    "/chat/blue": "/chat/{room}",
    "/files/a/b/c": "/files/{path:path}",
    "/class": "/class",
    "/asgi": "/asgi",
    "/api/v1/7": "/api/v1/{id:int}",
    "/t/acme/chat/blue": "/t/{tenant}/chat/{room}",
    "/raw/whatever/it/is": "/raw",
    "/layer/2/leaf": "/layer/2/leaf",
}


@pytest.mark.parametrize(("path", "template"), STARLETTE.items())
@pytest.mark.parametrize("inside", [False, True], ids=["around", "add_middleware"])
def test_starlette(config: Config, path: str, template: str, inside: bool) -> None:
    if inside:
        layer = Middleware(LifecycleMiddleware, config=config)
        app: Any = starlette(middleware=[layer])
    else:
        app = LifecycleMiddleware(starlette(), config=config)
    visit(app, path)
    assert routes(config) == {template: 1}


@pytest.mark.parametrize("path", ["/nowhere", "/chat", "/chat/a/b", "//", ""])
def test_starlette_path_that_no_route_takes(config: Config, path: str) -> None:
    visit(LifecycleMiddleware(starlette(), config=config), path)
    assert routes(config) == {"other": 1}


@pytest.mark.parametrize("inside", [False, True], ids=["around", "add_middleware"])
@pytest.mark.parametrize("framework", ["starlette", "fastapi"])
def test_application_that_is_mounted(config: Config, framework: str, inside: bool) -> None:
    made: Any = starlette() if framework == "starlette" else fastapi()
    if inside:
        made.add_middleware(LifecycleMiddleware, config=config)
    else:
        made = LifecycleMiddleware(made, config=config)
    visit(made, "/sub/chat/blue")
    assert routes(config) == {"/sub/chat/{room}": 1}


def test_starlette_path_that_no_route_of_a_mount_takes(config: Config) -> None:
    """The mount is all that matched."""
    visit(LifecycleMiddleware(starlette(), config=config), "/api/v1/x")
    assert routes(config) == {"/api": 1}


def test_violation_before_the_answer_is_counted_on_the_route(config: Config) -> None:
    async def silent(ws: Any) -> None:
        await ws.receive()

    app = LifecycleMiddleware(Starlette(routes=[WebSocketRoute("/b/{id}", silent)]), config=config)
    visit(app, "/b/7")
    violations = {key[1:] for key in books(config) if key[0] == "protocol_violations"}
    assert violations == {("/b/{id}", "app", "app.return-before-handshake")}


def test_starlette_behind_a_proxy_with_a_root_path(config: Config) -> None:
    app = LifecycleMiddleware(starlette(), config=config)
    visit(app, "/public/chat/blue", root_path="/public")
    visit(app, "/public/api/v1/7", root_path="/public")
    assert routes(config) == {"/chat/{room}": 1, "/api/v1/{id:int}": 1}


def test_starlette_one_handler_at_two_paths(config: Config) -> None:
    table = [WebSocketRoute("/old/{room}", chat), WebSocketRoute("/new/{room}", chat)]
    visit(LifecycleMiddleware(Starlette(routes=table), config=config), "/old/a", "/new/a", "/old/b")
    assert routes(config) == {"/old/{room}": 2, "/new/{room}": 1}


def test_starlette_one_application_at_two_mounts(config: Config) -> None:
    inner = StarletteRouter(routes=[WebSocketRoute("/chat/{room}", chat)])
    table = [Mount("/one", app=inner), Mount("/two", app=inner)]
    app = LifecycleMiddleware(Starlette(routes=table), config=config)
    visit(app, "/one/chat/a", "/two/chat/a", "/two/chat/b")
    assert routes(config) == {"/one/chat/{room}": 1, "/two/chat/{room}": 2}


def test_two_applications_in_one_process(config: Config) -> None:
    table = [WebSocketRoute("/chat/{room}", chat)]
    one = Starlette(routes=[Mount("/one", routes=table)])
    two = Starlette(routes=[Mount("/two", routes=table)])
    visit(LifecycleMiddleware(one, config=config), "/one/chat/a")
    visit(LifecycleMiddleware(two, config=config), "/two/chat/a")
    assert routes(config) == {"/one/chat/{room}": 1, "/two/chat/{room}": 1}


def test_starlette_mount_with_a_parameter_and_one_beside_it(config: Config) -> None:
    inner = Starlette(routes=[WebSocketRoute("/chat/{room}", chat), Mount("/raw", app=plain)])
    table = [Mount("/t/{tenant}", app=inner), Mount("/own", app=inner)]
    app = LifecycleMiddleware(Starlette(routes=table), config=config)
    visit(app, "/t/acme/chat/a", "/own/chat/a", "/t/acme/raw/x", "/own/raw/x")
    visit(app, "/proxy/own/chat/a", root_path="/proxy")
    found = {"/t/{tenant}/chat/{room}": 1, "/own/chat/{room}": 2}
    assert routes(config) == {**found, "/t/{tenant}/raw": 1, "/own/raw": 1}


def test_starlette_by_host(config: Config) -> None:
    inner = StarletteRouter(routes=[WebSocketRoute("/chat/{room}", chat)])
    table = [Host("test", app=inner), Mount("/two", app=inner)]
    visit(LifecycleMiddleware(Starlette(routes=table), config=config), "/chat/a")
    assert routes(config) == {"/chat/{room}": 1}


@pytest.mark.parametrize(("mount", "template"), [("/", "/"), ("", "/"), ("/x/", "/x")])
def test_what_is_mounted_at_the_root_has_a_template(
    config: Config, mount: str, template: str
) -> None:
    app = LifecycleMiddleware(Starlette(routes=[Mount(mount, app=plain)]), config=config)
    visit(app, "/x/socket")
    assert routes(config) == {template: 1}


@pytest.mark.parametrize(
    ("inner", "path", "template"),
    [
        ("starlette", "/chat/blue", "/chat/{room}"),
        ("starlette", "/sub/chat/blue", "/sub/chat/{room}"),
        ("fastapi", "/chat/blue", "/chat/{room}"),
        ("fastapi", "/api/items/7/watch", "/api/items/{item}/watch"),
    ],
)
def test_a_mount_beside_a_host_that_comes_first(
    config: Config, inner: str, path: str, template: str
) -> None:
    mounted: Any = starlette() if inner == "starlette" else fastapi()
    hosted = StarletteRouter(routes=[WebSocketRoute("/chat/{room}", chat)])
    table = [Host("elsewhere.example", app=hosted), Mount("/t/{tenant}", app=mounted)]
    visit(LifecycleMiddleware(Starlette(routes=table), config=config), f"/t/acme{path}")
    assert routes(config) == {"/t/{tenant}" + template: 1}


def test_a_router_for_a_host_may_have_mounts(config: Config) -> None:
    inner = StarletteRouter(routes=[Mount("/m", routes=[WebSocketRoute("/chat/{room}", chat)])])
    table = [Host("other.example", app=inner), Host("test", app=inner)]
    visit(LifecycleMiddleware(Starlette(routes=table), config=config), "/m/chat/a")
    assert routes(config) == {"/m/chat/{room}": 1}


def test_fastapi_router_in_an_application_that_is_mounted(config: Config) -> None:
    outer = FastAPI()
    outer.mount("/v/{version}", fastapi())
    app = LifecycleMiddleware(outer, config=config)
    visit(app, "/v/2/api/items/7/watch", "/v/2/chat/blue", "/v/2/sub/chat/blue")
    found = dict.fromkeys(("/chat/{room}", "/sub/chat/{room}", "/api/items/{item}/watch"), 1)
    assert routes(config) == {"/v/{version}" + path: times for path, times in found.items()}


def test_starlette_router_without_an_application(config: Config) -> None:
    app = StarletteRouter(routes=[WebSocketRoute("/chat/{room}", chat)])
    visit(LifecycleMiddleware(app, config=config), "/chat/a")
    assert set(routes(config)) <= {"/chat/{room}", "other"}


def test_starlette_rejects_before_the_accept(config: Config) -> None:
    async def reject(ws: Any) -> None:
        await ws.close(4403)

    app = Starlette(routes=[WebSocketRoute("/private/{id}", reject)])
    visit(LifecycleMiddleware(app, config=config), "/private/7")
    assert books(config)["handshakes", "/private/{id}", "rejected"] == 1


def test_starlette_handler_that_raises_before_the_accept(config: Config) -> None:
    async def broken(ws: Any) -> None:
        raise RuntimeError("broken")

    app = LifecycleMiddleware(Starlette(routes=[WebSocketRoute("/b/{id}", broken)]), config=config)
    with pytest.raises(RuntimeError):
        visit(app, "/b/7")
    assert books(config)["handshakes", "/b/{id}", "error"] == 1
    assert books(config)["app_errors", "/b/{id}"] == 1


# FastAPI.


def fastapi() -> FastAPI:
    app = FastAPI()
    items = APIRouter(prefix="/items/{item}")
    nested = APIRouter(prefix="/nested")
    inner = FastAPI()

    @app.websocket("/chat/{room}")
    async def with_parameter(ws: FastAPISocket, room: str) -> None:
        await chat(ws)

    def user(token: str = "") -> str:
        return token

    @app.websocket("/depends")
    async def with_dependency(ws: FastAPISocket, name: str = Depends(user)) -> None:
        await chat(ws)

    @items.websocket("/watch")
    async def watch(ws: FastAPISocket, item: int) -> None:
        await chat(ws)

    @nested.websocket("/deep/{x}")
    async def deep(ws: FastAPISocket, x: str) -> None:
        await chat(ws)

    @inner.websocket("/chat/{room}")
    async def inside(ws: FastAPISocket, room: str) -> None:
        await chat(ws)

    items.include_router(nested)
    app.include_router(items, prefix="/api")
    app.mount("/sub", inner)
    app.mount("/raw", plain)
    return app


FASTAPI = {
    "/chat/blue": "/chat/{room}",
    "/depends": "/depends",
    "/api/items/7/watch": "/api/items/{item}/watch",
    "/api/items/7/nested/deep/y": "/api/items/{item}/nested/deep/{x}",
    "/raw/a": "/raw",
    "/nowhere": "other",
}


@pytest.mark.parametrize(("path", "template"), FASTAPI.items())
@pytest.mark.parametrize("inside", [False, True], ids=["around", "add_middleware"])
def test_fastapi(config: Config, path: str, template: str, inside: bool) -> None:
    app: Any = fastapi()
    if inside:
        app.add_middleware(LifecycleMiddleware, config=config)
    else:
        app = LifecycleMiddleware(app, config=config)
    visit(app, path)
    assert routes(config) == {template: 1}


def test_fastapi_refuses_a_parameter(config: Config) -> None:
    visit(LifecycleMiddleware(fastapi(), config=config), "/api/items/no-number/watch")
    assert routes(config) == {"/api/items/{item}/watch": 1}


# Litestar.


@websocket("/chat/{room:str}")
async def litestar_chat(socket: WebSocket[Any, Any, Any]) -> None:
    await socket.accept()
    await socket.receive_text()
    await socket.close()


@websocket("/plain")
async def litestar_plain(socket: WebSocket[Any, Any, Any]) -> None:
    await socket.accept()
    await socket.close()


@asgi("/raw", is_mount=True, copy_scope=False)
async def litestar_raw(scope: Any, receive: Any, send: Any) -> None:
    await plain(scope, receive, send)


LITESTAR = {
    "/chat/blue": "/chat/{room}",
    "/api/chat/blue": "/api/chat/{room}",
    "/plain": "/plain",
    "/nowhere": "other",
}


@pytest.mark.parametrize(("path", "template"), LITESTAR.items())
@pytest.mark.parametrize("inside", [False, True], ids=["around", "middleware"])
def test_litestar(config: Config, path: str, template: str, inside: bool) -> None:
    handlers: list[Any] = [
        litestar_chat,
        litestar_plain,
        Router("/api", route_handlers=[litestar_chat]),
    ]
    if inside:
        made = [lambda app: LifecycleMiddleware(app, config=config)]
        app: Any = Litestar(handlers, middleware=made, logging_config=None)
    else:
        app = LifecycleMiddleware(Litestar(handlers, logging_config=None), config=config)
    visit(app, path)
    # Litestar's own middleware runs within a route: of other paths it is not told.
    assert routes(config) == ({} if inside and template == "other" else {template: 1})


def test_litestar_mount(config: Config) -> None:
    visit(
        LifecycleMiddleware(Litestar([litestar_raw], logging_config=None), config=config),
        "/raw/a/b",
    )
    assert set(routes(config)) <= {"/raw", "other"}


# Plain ASGI.


def test_plain_application_is_other(config: Config) -> None:
    visit(LifecycleMiddleware(plain, config=config), "/a", "/b/c", "/")
    assert routes(config) == {"other": 3}


def test_thousand_paths_add_no_series(config: Config) -> None:
    app = LifecycleMiddleware(plain, config=config)
    visit(app, "/first")
    before = len(books(config))
    visit(app, *(f"/path/{n}" for n in range(1_000)))
    assert len(books(config)) == before


# What the user says.


def test_callable_of_the_user(config: Config) -> None:
    config = replace(config, route=lambda scope: "/tenant/{t}" if "/t/" in scope["path"] else None)
    visit(LifecycleMiddleware(plain, config=config), "/t/acme", "/t/other", "/x")
    assert routes(config) == {"/tenant/{t}": 2, "other": 1}


def test_callable_wins_over_the_framework(config: Config) -> None:
    config = replace(config, route=lambda scope: "/mine")
    visit(LifecycleMiddleware(starlette(), config=config), "/chat/blue")
    assert routes(config) == {"/mine": 1}


def test_callable_that_raises(config: Config, caplog: pytest.LogCaptureFixture) -> None:
    def broken(scope: Any) -> str:
        raise KeyError("tenant")

    sent = visit(LifecycleMiddleware(plain, config=replace(config, route=broken)), "/a", "/b")
    assert sent == [ACCEPT, ACCEPT]
    assert routes(config) == {"other": 2}
    assert sum("Config.route raised" in r.getMessage() for r in caplog.records) <= 1


@pytest.mark.parametrize(
    "value",
    [
        *(7, b"/bytes", object, True, 1.5, ""),
        ["/list"],
        {"/": "dict"},
    ],
    ids=repr,
)
def test_callable_that_returns_no_text(config: Config, value: Any) -> None:
    config = replace(config, route=lambda scope: value)
    visit(LifecycleMiddleware(plain, config=config), "/a")
    assert routes(config) == {"other": 1}


HOSTILE = {
    "newline": "/a\nb",
    "quote and backslash": '/a"b\\c',
    "control characters": "/a\x00\x1b[31m",
    "direction override": "/a\u202eb",
    "lone surrogate": "/a\ud800",
    "not ASCII": "/\u00e4/\u20ac",
}


@pytest.mark.parametrize("value", HOSTILE.values(), ids=HOSTILE)
def test_hostile_template_is_made_harmless(config: Config, value: str) -> None:
    config = replace(config, route=lambda scope: value)
    visit(LifecycleMiddleware(plain, config=config), "/a")
    (name,) = routes(config)
    name.encode("utf-8")
    assert name.isprintable()


def test_long_template_is_cut(config: Config) -> None:
    config = replace(config, route=lambda scope: "/" + "x" * 100_000)
    visit(LifecycleMiddleware(plain, config=config), "/a")
    (name,) = routes(config)
    assert len(name) <= 128


def by_path(scope: Any) -> str:
    return str(scope["path"])


def test_cap_of_routes(config: Config) -> None:
    app = LifecycleMiddleware(plain, config=replace(config, route=by_path))
    visit(app, *(f"/r/{n}" for n in range(60)))
    found = routes(config)
    assert len(found) == 51
    assert found["other"] == 10
    assert totals(books(config), "ws_lifecycle_metrics.label_overflow") == 10
    visit(app, "/r/0", "/r/59")
    assert routes(config)["/r/0"] == 2
    assert routes(config)["other"] == 11


def test_reserved_routes_keep_their_place(config: Config) -> None:
    config = replace(config, route=by_path, routes=("/chat", "/late"), max_routes=5)
    app = LifecycleMiddleware(plain, config=config)
    visit(app, *(f"/attack/{n}" for n in range(100)), "/chat", "/late")
    found = routes(config)
    assert (found["/chat"], found["/late"], found["other"]) == (1, 1, 97)
    assert len(found) == 6


def test_reserved_routes_stand_at_zero(config: Config) -> None:
    from ws_lifecycle_metrics import LifecycleCollector  # heavy, and used here only

    config = replace(config, route=by_path, routes=("/chat",))
    visit(LifecycleMiddleware(plain, config=config), "/other")
    (family,) = (
        f for f in LifecycleCollector(config).collect() if f.name == "websocket_server_handshakes"
    )
    values = {(s.labels["http_route"], s.labels["result"]): s.value for s in family.samples}
    assert values["/chat", "accepted"] == 0


def test_no_more_routes_than_other(config: Config) -> None:
    app = LifecycleMiddleware(plain, config=replace(config, route=by_path, max_routes=0))
    visit(app, "/a", "/b", "/a")
    assert routes(config) == {"other": 3}


@pytest.mark.parametrize(
    "fields",
    [
        {"route": object()},
        {"route": type("Route", (), {"path": 7})()},
        {"route": "text", "endpoint": 7},
        {"endpoint": print, "app": object()},
        {"endpoint": print, "app": type("App", (), {"routes": 7})()},
        {"path_template": 7},
        {"path_template": ""},
        {"path_template": ["/x"]},
    ],
    ids=repr,
)
def test_foreign_keys_of_the_scope(config: Config, fields: dict[str, Any]) -> None:
    """A scope may hold anything under the keys that a framework we know uses."""
    sent = visit(LifecycleMiddleware(plain, config=config), "/a", **fields)
    assert sent == [ACCEPT]
    assert routes(config) == {"other": 1}
