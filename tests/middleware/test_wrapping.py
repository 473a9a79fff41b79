"""One middleware observes a scope, however often the application is wrapped; and who reads it."""

from __future__ import annotations

import asyncio
import gc
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from fastapi import FastAPI, WebSocket

from tests import support
from tests.support import ACCEPT, CONNECT, DISCONNECT, Peer, books, receive_text, send_text
from ws_lifecycle_metrics import Config, ConfigError, LifecycleCollector, LifecycleMiddleware
from ws_lifecycle_metrics import metrics_app as endpoint
from ws_lifecycle_metrics.store.snapshot import Source
from ws_lifecycle_metrics.telemetry import logs

if TYPE_CHECKING:
    from pathlib import Path


async def echo(_scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send(ACCEPT)
    while (event := await receive())["type"] == "websocket.receive":
        await send(send_text(event["text"]))


def play(app: Any, **scope: Any) -> None:
    peer = Peer([CONNECT, receive_text("hi"), receive_text("hi"), DISCONNECT])
    asyncio.run(_served(app, peer, scope))


async def _served(app: Any, peer: Peer, scope: dict[str, Any]) -> None:
    await asyncio.wait_for(app(support.scope(**scope), peer.receive, peer.send), 10)


def counted(config: Config) -> tuple[float, ...]:
    names = ("handshakes", "closes", "received_messages", "sent_messages")
    found = books(config)
    return tuple(sum(v for k, v in found.items() if k[0] == name) for name in names)


def copying(app: Any) -> Any:
    """Wrap an application as tracers do: another scope, and functions of their own."""

    async def copied(scope: Any, receive: Any, send: Any) -> None:
        async def receiving() -> Any:
            return await receive()

        async def sending(message: Any) -> None:
            await send(message)

        await app(dict(scope), receiving, sending)

    return copied


@pytest.mark.parametrize(
    "layered",
    [
        lambda wrap: wrap(wrap(echo)),
        lambda wrap: wrap(copying(wrap(copying(wrap(echo))))),
    ],
    ids=["bare", "wrapped calls between"],
)
def test_an_application_that_is_wrapped_twice_is_counted_once(
    config: Config,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    layered: Any,
) -> None:
    monkeypatch.setattr(logs, "_said", set())
    for _ in range(2):
        play(layered(partial(LifecycleMiddleware, config=config)))
    assert counted(config) == (2, 2, 4, 4)
    assert [text for text in caplog.messages if "wrapped twice" in text] == [
        "the application is wrapped twice for the service 'test':"
        " the inner LifecycleMiddleware leaves all WebSockets to the outer one"
    ]


def test_a_framework_between_the_two_makes_no_difference(config: Config) -> None:
    api = FastAPI()
    api.add_middleware(LifecycleMiddleware, config=config)

    @api.websocket("/chat/{room}")
    async def chat(socket: WebSocket, room: str) -> None:
        await socket.accept()
        async for text in socket.iter_text():
            await socket.send_text(text)

    play(LifecycleMiddleware(api, config=config), path="/chat/a", raw_path=b"/chat/a")
    assert counted(config) == (1, 1, 2, 2)
    assert books(config)["handshakes", "/chat/{room}", "accepted"] == 1


@pytest.mark.parametrize("between", [lambda app: app, copying], ids=["bare", "wrapped calls"])
def test_another_service_between_the_two_makes_no_difference(
    config: Config, tmp_path: Path, between: Any
) -> None:
    other = Config(service="other", directory=str(tmp_path))
    inner = between(LifecycleMiddleware(echo, config=config))
    play(
        LifecycleMiddleware(
            between(LifecycleMiddleware(inner, config=other)),
            config=config,
        )
    )
    assert counted(config) == counted(other) == (1, 1, 2, 2)


def test_a_connection_within_a_connection_is_counted_on_its_own(config: Config) -> None:
    """A handler that calls an application as a server would, with a scope of its own."""
    inner = LifecycleMiddleware(echo, config=config)

    async def nesting(scope: Any, receive: Any, send: Any) -> None:
        peer = Peer([CONNECT, receive_text("hi"), DISCONNECT])
        await inner(support.scope(path=scope["path"]), peer.receive, peer.send)
        await echo(scope, receive, send)

    play(LifecycleMiddleware(copying(nesting), config=config))
    assert counted(config) == (2, 2, 3, 3)


def test_a_task_that_outlives_its_connection_is_on_none(config: Config) -> None:
    """It keeps what surrounded it, and here also the conversation and its scope."""
    inner = copying(LifecycleMiddleware(echo, config=config))
    ended, left = asyncio.Event(), set()

    async def later(scope: Any, receive: Any) -> None:
        await ended.wait()
        assert receive.__self__.over
        await _served(inner, Peer([CONNECT, DISCONNECT]), scope)

    async def leaving(scope: Any, receive: Any, send: Any) -> None:
        left.add(asyncio.create_task(later(scope, receive)))
        await echo(scope, receive, send)

    async def main() -> None:
        await _served(LifecycleMiddleware(leaving, config=config), Peer([CONNECT, DISCONNECT]), {})
        ended.set()
        await asyncio.wait_for(left.pop(), 10)

    asyncio.run(main())
    assert counted(config)[:2] == (2, 2)


def test_what_a_connection_held_is_not_kept_by_a_task_that_outlives_it(config: Config) -> None:
    kept: list[weakref.ref[Peer]] = []

    async def main() -> None:
        over = asyncio.Event()
        left: list[asyncio.Task[Any]] = []

        async def leaving(scope: Any, receive: Any, send: Any) -> None:
            left.append(asyncio.create_task(over.wait()))
            await echo(scope, receive, send)

        peer = Peer([CONNECT, DISCONNECT])
        kept.append(weakref.ref(peer))
        await _served(LifecycleMiddleware(leaving, config=config), peer, {})
        del peer
        gc.collect()
        assert kept[0]() is None
        over.set()
        await asyncio.wait_for(left[0], 10)

    asyncio.run(main())


def test_two_services_each_count_the_connection(config: Config, tmp_path: Path) -> None:
    other = Config(service="other", directory=str(tmp_path))
    play(LifecycleMiddleware(LifecycleMiddleware(echo, config=config), config=other))
    assert counted(config) == counted(other) == (1, 1, 2, 2)


def test_who_reads_without_a_configuration_reads_the_middlewares(config: Config) -> None:
    collector, app = LifecycleCollector(), endpoint()  # made before, as in a module above
    play(LifecycleMiddleware(echo, config=config))
    [family] = [f for f in collector.collect() if f.name == "websocket_server_handshakes"]
    assert sum(s.value for s in family.samples) == 1
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(app({"type": "http", "method": "GET", "headers": []}, None, send))
    assert b'result="accepted"} 1.0' in sent[1]["body"]


def test_of_several_services_the_environment_says_which_one_is_read(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    LifecycleMiddleware(echo, config=config)
    assert Source().config == config
    LifecycleMiddleware(echo, config=Config(service="other", directory=str(tmp_path)))
    monkeypatch.setenv("WS_LIFECYCLE_SERVICE", "third")
    assert Source().config.service == "third"


@pytest.mark.parametrize("make", [partial(LifecycleMiddleware, echo), LifecycleCollector, endpoint])
def test_a_configuration_of_another_type_is_refused_at_once(make: Any) -> None:
    expected = r"config is of type dict: accepted is a Config, as in Config\(policy=…\)"
    with pytest.raises(ConfigError, match=expected):
        make(config={"policy": "shield"})
