"""Whatever is done from either side, the other side sees the same, whoever stands between."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings

from tests.middleware.scripts import LIFESPAN, NAMED, OBSERVED, OTHER_SCOPES, SCRIPTS
from tests.middleware.transparency import Script, bare, differences, make_app, run
from tests.support import CONNECT, Peer, books, finish, pause, scope, unbalanced, until_pause
from ws_lifecycle_metrics import Config, LifecycleMiddleware
from ws_lifecycle_metrics.store.workers import existing

FEW = settings(max_examples=100, deadline=None)
MANY = settings(max_examples=5_000, deadline=None)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """One service for all examples of Hypothesis: a worker is made once a thread."""
    return Config(service="shared", directory=str(tmp_path_factory.mktemp("segments")))


@pytest.mark.parametrize("script", NAMED.values(), ids=NAMED)
def test_named_script(config: Config, script: Script) -> None:
    assert differences(partial(LifecycleMiddleware, config=config), script) == []
    counted = 1 if script.make_scope in OBSERVED else 0
    assert unbalanced(books(config), counted) == []


@FEW
@given(SCRIPTS)
def test_any_script(shared: Config, script: Script) -> None:
    assert differences(partial(LifecycleMiddleware, config=shared), script) == []


@pytest.mark.slow
@MANY
@given(SCRIPTS)
def test_many_scripts(shared: Config, script: Script) -> None:
    assert differences(partial(LifecycleMiddleware, config=shared), script) == []


@FEW
@given(SCRIPTS)
def test_any_script_within_two_middlewares(shared: Config, script: Script) -> None:
    once = partial(LifecycleMiddleware, config=shared)
    assert differences(lambda app: once(once(app)), script) == []


def test_a_difference_is_seen() -> None:
    def deaf(app: Any) -> Any:
        async def wrapped(scope: Any, receive: Any, send: Any) -> None:
            return None

        return wrapped

    assert differences(bare, NAMED["an echo"]) == []
    assert differences(deaf, NAMED["an echo"]) != []


def test_the_harness_reaches_what_it_is_to_check() -> None:
    """A harness that never cancels or never leaves a task behind would find nothing."""
    happened = {
        entry[1] for script in NAMED.values() for entry in run(script, bare, scope())[0].seen
    }
    assert {
        "receive 1 cancelled and raised",
        "send 0 cancelled and raised",
        "receive raised",
        "send raised",
        "left raised",
        "returned",
    } <= happened


# Scopes that are none of ours.


class Untouched:
    """An application that keeps the very objects that it was called with."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error

    async def __call__(self, *arguments: Any) -> None:
        self.arguments = arguments
        if self.error is not None:
            raise self.error


@pytest.mark.parametrize("other", OTHER_SCOPES, ids=lambda s: type(s).__name__)
def test_other_scope_reaches_the_application_as_it_is(config: Config, other: Any) -> None:
    app, peer = Untouched(), Peer()
    given = (other, peer.receive, peer.send)
    finish(LifecycleMiddleware(app, config=config)(*given))
    pairs = list(zip(given, app.arguments, strict=True))
    if other is LIFESPAN:
        del pairs[1]  # its receive() is listened to
    assert all(a is b for a, b in pairs)
    assert books(config) == {}


@pytest.mark.parametrize("kind", ["lifespan", "http", "websocket"])
@pytest.mark.parametrize("error", [RuntimeError("no lifespan"), KeyboardInterrupt()], ids=repr)
def test_exception_of_the_application_is_the_same_object(
    config: Config, kind: str, error: BaseException
) -> None:
    app, peer = Untouched(error), Peer()
    with pytest.raises(type(error)) as caught:
        finish(LifecycleMiddleware(app, config=config)({"type": kind}, peer.receive, peer.send))
    assert caught.value is error


@pytest.mark.parametrize("error", [RuntimeError("too early"), TypeError("arguments")], ids=repr)
def test_exception_before_there_is_an_awaitable(config: Config, error: Exception) -> None:
    def app(*_: Any) -> Any:
        raise error

    peer = Peer()
    with pytest.raises(type(error)) as caught:
        peer.serve(LifecycleMiddleware(app, config=config))
    assert caught.value is error
    assert unbalanced(books(config), 1) == []


@pytest.mark.parametrize("kind", ["lifespan", "http", "websocket"])
def test_what_the_application_returns(config: Config, kind: str) -> None:
    """Uvicorn reports an application that returns something."""

    async def app(*_: Any) -> str:
        return "wrong"

    wrapped = LifecycleMiddleware(app, config=config)
    peer = Peer()
    assert finish(wrapped({"type": kind}, peer.receive, peer.send)) == "wrong"


def test_lifespan_shutdown_is_noted_and_passed(config: Config) -> None:
    startup, shutdown = {"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}
    complete = {"type": "lifespan.startup.complete"}
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(await receive())
        await send(complete)
        seen.append(await receive())

    events = [startup, shutdown]

    async def receive() -> Any:
        if len(events) == 1:
            await pause()
        return events.pop(0)

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    wrapped = LifecycleMiddleware(app, config=config)
    finish(
        LifecycleMiddleware(make_app("function", _accept), config=config)(
            scope(), Peer([CONNECT]).receive, Peer().send
        )
    )
    worker = existing(config)
    assert worker is not None
    serving = wrapped({"type": "lifespan"}, receive, send)
    until_pause(serving)
    assert not worker.draining
    finish(serving)
    assert worker.draining
    assert [id(m) for m in seen] == [id(startup), id(shutdown)]
    assert sent == [complete]
    assert sent[0] is complete


def test_a_worker_drains_with_the_last_server_on_its_loop(config: Config) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})

    wrapped = LifecycleMiddleware(app, config=config)

    async def serve(*told: str) -> None:
        servers = {"public": asyncio.Queue[Any](), "admin": asyncio.Queue[Any]()}
        calls = {
            name: asyncio.create_task(wrapped({"type": "lifespan"}, queue.get, Peer().send))
            for name, queue in servers.items()
        }
        await pause_of_loop()
        for name, event in (one.split() for one in told):
            servers[name].put_nowait({"type": f"lifespan.{event}"})
            await pause_of_loop()
        for call in calls.values():
            call.cancel()
        await asyncio.wait(calls.values(), timeout=10)

    def drains(*told: str) -> bool:
        asyncio.run(serve(*told))
        worker = existing(config)
        assert worker is not None
        return worker.draining

    both = "public startup", "admin startup"
    assert not drains(*both, "admin shutdown")
    assert drains(*both, "admin shutdown", "public shutdown")
    assert not drains()  # another loop, after the first server has ended
    assert not drains("public startup", "public shutdown", "admin startup")


async def pause_of_loop() -> None:
    """Let all that is ready run."""
    for _ in range(10):
        await asyncio.sleep(0)


async def _accept(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})


@pytest.mark.parametrize(
    "message", [None, 7, {}, {"type": []}, {"type": "lifespan.startup"}], ids=repr
)
def test_strange_lifespan_message_passes(config: Config, message: Any) -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(await receive())

    peer = Peer([message])
    finish(LifecycleMiddleware(app, config=config)({"type": "lifespan"}, peer.receive, peer.send))
    assert seen[0] is message


class Moody:
    """An application that may not be looked at, as an unbound proxy."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError("working outside of a request")

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await _accept(scope, receive, send)


def test_application_that_may_not_be_looked_at(config: Config) -> None:
    peer = Peer([CONNECT])
    peer.serve(LifecycleMiddleware(Moody(), config=config))
    assert peer.sent == [{"type": "websocket.accept"}]
