"""On real loops, asyncio's and trio's: cancellation, concurrency and tasks left behind."""

from __future__ import annotations

import asyncio
import contextvars
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import pytest
import trio

from tests.support import (
    ACCEPT,
    CLOSE,
    CONNECT,
    DISCONNECT,
    Peer,
    books,
    receive_text,
    scope,
    send_text,
    table,
    totals,
    unbalanced,
    without,
)
from ws_lifecycle_metrics import Config, LifecycleMiddleware
from ws_lifecycle_metrics.testing.recorder import Recorder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Wrap = Callable[[Any], Any]

DURATIONS = ("handshake.duration", "connection.duration", "send.duration")
LIMIT = 20.0
both = pytest.mark.parametrize("backend", ["asyncio", "trio"])


@pytest.fixture
def wrap(config: Config) -> Wrap:
    return partial(LifecycleMiddleware, config=config)


def on(backend: str, main: Callable[[], Any]) -> None:
    async def limited() -> None:
        with anyio.fail_after(LIMIT):
            await main()

    anyio.run(limited, backend=backend)


class Client:
    """Both ends of a connection: what is put is received, what is sent is kept."""

    def __init__(self) -> None:
        self.put, self.get = anyio.create_memory_object_stream[Any](100)
        self.sent: list[Any] = []
        self.may_send = anyio.Event()
        self.may_send.set()

    async def receive(self) -> Any:
        return await self.get.receive()

    async def send(self, message: Any) -> None:
        await self.may_send.wait()
        self.sent.append(message)

    def deliver(self, *events: Any) -> None:
        for event in events:
            self.put.send_nowait(event)

    def close(self) -> None:
        self.put.close()
        self.get.close()


async def echo(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send(ACCEPT)
    while (event := await receive())["type"] == "websocket.receive":
        await send(send_text(event["text"]))


@both
def test_echo(config: Config, wrap: Wrap, backend: str) -> None:
    async def main() -> None:
        client = Client()
        client.deliver(CONNECT, *map(receive_text, "abc"), DISCONNECT)
        await wrap(echo)(scope(), client.receive, client.send)
        assert client.sent == [ACCEPT, *map(send_text, "abc")]
        client.close()

    on(backend, main)
    assert unbalanced(books(config), 1) == []
    assert books(config)["sent_messages", "other", "text"] == 3


class Waiting:
    """An application that waits in one place, and keeps the exception that reached it there."""

    def __init__(self, place: str, client: Client) -> None:
        self.place, self.client = place, client
        self.caught: list[BaseException] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(ACCEPT)
        self.client.may_send = anyio.Event()
        places = {"receive": receive, "send": partial(send, CLOSE), "itself": anyio.sleep_forever}
        with keeping(self.caught):
            await places[self.place]()


@contextmanager
def keeping(caught: list[BaseException]) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        caught.append(error)
        raise


@both
@pytest.mark.parametrize("place", ["receive", "send", "itself"])
def test_cancelled_wherever_it_waits(config: Config, wrap: Wrap, backend: str, place: str) -> None:
    async def main() -> None:
        client = Client()
        client.deliver(CONNECT)
        app = Waiting(place, client)
        left: list[BaseException] = []

        async def serve() -> None:
            with keeping(left):
                await wrap(app)(scope(), client.receive, client.send)

        async with anyio.create_task_group() as group:
            group.start_soon(serve)
            await anyio.wait_all_tasks_blocked()
            group.cancel_scope.cancel()
        client.close()
        assert len(app.caught) == 1
        assert left[0] is app.caught[0]
        assert client.sent == [ACCEPT]

    on(backend, main)
    assert unbalanced(books(config), 1) == []
    assert totals(books(config), "app_errors") == 0


def test_cancellation_keeps_its_message(wrap: Wrap) -> None:
    async def main() -> None:
        client = Client()
        task = asyncio.create_task(wrap(echo)(scope(), client.receive, client.send))
        await asyncio.sleep(0)
        task.cancel("the server stops")
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
        assert caught.value.args == ("the server stops",)
        client.close()

    on("asyncio", main)


@both
def test_a_cancelled_receive_loses_nothing(wrap: Wrap, backend: str) -> None:
    """A receive() with a time limit of the application's own, again and again."""
    got: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(ACCEPT)
        while not got or got[-1] is not DISCONNECT:
            with anyio.move_on_after(0.002):
                got.append(await receive())

    async def main() -> None:
        client = Client()
        events = [*map(receive_text, "abcdefgh"), DISCONNECT]
        client.deliver(CONNECT)

        async def talk() -> None:
            for event in events:
                await anyio.lowlevel.checkpoint()
                client.deliver(event)

        async with anyio.create_task_group() as group:
            group.start_soon(talk)
            await wrap(app)(scope(), client.receive, client.send)
        client.close()
        assert [id(event) for event in got] == [id(event) for event in events]

    on(backend, main)


@both
def test_many_senders_and_a_reader_at_once(config: Config, wrap: Wrap, backend: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(ACCEPT)

        async def tell(who: str) -> None:
            for _ in range(20):
                await send(send_text(who))
                await anyio.lowlevel.checkpoint()

        async with anyio.create_task_group() as group:
            for who in "abcde":
                group.start_soon(tell, who)
            for _ in range(3):
                await receive()
                await anyio.lowlevel.checkpoint()
        assert await receive() is DISCONNECT

    async def main() -> None:
        client = Client()
        client.deliver(CONNECT, *map(receive_text, "xyz"), DISCONNECT)
        await wrap(app)(scope(), client.receive, client.send)
        client.close()
        assert len(client.sent) == 101

    on(backend, main)
    found = books(config)
    assert unbalanced(found, 1) == []
    assert found["sent_messages", "other", "text"] == 100
    assert found["received_messages", "other", "text"] == 3
    assert totals(found, "protocol_violations") == 0


def test_tasks_left_behind_on_asyncio(config: Config, wrap: Wrap) -> None:
    got: list[Any] = []
    left: list[asyncio.Task[None]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(ACCEPT)

        async def later() -> None:
            got.append(await receive())
            await send(send_text("late"))
            await send(CLOSE)

        left.append(asyncio.create_task(later()))
        await asyncio.sleep(0)

    async def main() -> None:
        client = Client()
        client.deliver(CONNECT)
        await wrap(app)(scope(), client.receive, client.send)
        late = receive_text("late")
        client.deliver(late)
        await left[0]
        client.close()
        assert got[0] is late
        assert client.sent == [ACCEPT, send_text("late"), CLOSE]

    on("asyncio", main)
    expected = """
        handshakes other accepted 1
        closes other server other 1
        protocol_violations other app app.return-without-close 1
        protocol_violations other app app.receive-pending-at-return 1
        """
    found = without(books(config), *DURATIONS)
    assert {k: v for k, v in found.items() if "after" not in k[-1]} == table(expected)
    assert unbalanced(books(config), 1) == []


def test_tasks_left_behind_on_trio(config: Config, wrap: Wrap) -> None:
    async def main() -> None:
        client = Client()
        client.deliver(CONNECT)
        async with trio.open_nursery() as nursery:

            async def app(scope: Any, receive: Any, send: Any) -> None:
                await receive()
                await send(ACCEPT)

                async def later() -> None:
                    await receive()
                    await send(send_text("late"))

                nursery.start_soon(later)

            await wrap(app)(scope(), client.receive, client.send)
            client.deliver(receive_text("late"))
        client.close()
        assert client.sent == [ACCEPT, send_text("late")]

    on("trio", main)
    assert unbalanced(books(config), 1) == []


@both
def test_same_task_and_same_context_on_both_sides(wrap: Wrap, backend: str) -> None:
    """Servers and frameworks keep things in context variables, or by task."""
    variable = contextvars.ContextVar("variable", default="")
    tasks: list[Any] = []

    async def receive() -> Any:
        tasks.append(anyio.get_current_task().id)
        assert variable.get() == "of the application"
        variable.set("of the server")
        return CONNECT

    async def app(scope: Any, receive: Any, send: Any) -> None:
        tasks.append(anyio.get_current_task().id)
        variable.set("of the application")
        await receive()
        assert variable.get() == "of the server"

    async def main() -> None:
        tasks.append(anyio.get_current_task().id)
        await wrap(app)(scope(), receive, Peer().send)
        assert len(set(tasks)) == 1
        assert variable.get() == "of the server"

    on(backend, main)


class LoopBound(Client):
    """A server whose calls give what only its own loop can wait for, as Granian's do."""

    async def receive(self) -> Any:
        return await self._on_loop(super().receive)

    async def send(self, message: Any) -> None:
        self.sent.append(message)
        if len(self.sent) > 1:
            await self._on_loop(anyio.lowlevel.checkpoint)

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.get_running_loop()

    async def _on_loop(self, call: Callable[[], Any]) -> Any:
        # The future is made first: whoever waits on another loop raises before anything is read.
        done: asyncio.Future[Any] = self.loop.create_future()
        if asyncio.get_running_loop() is self.loop:
            done.set_result(await call())
        return await done


@pytest.mark.parametrize("call", ["send", "receive"])
@pytest.mark.parametrize("recording", [False, True], ids=["counted", "recorded"])
def test_a_call_from_another_loop_is_not_the_servers_fault(
    config: Config, wrap: Wrap, call: str, recording: bool
) -> None:
    told: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(ACCEPT)

        async def elsewhere() -> None:
            await (send(send_text("from another loop")) if call == "send" else receive())

        try:
            await asyncio.to_thread(partial(asyncio.run, elsewhere()))
        finally:
            await send(send_text("from its own"))

    async def main() -> None:
        client = LoopBound()
        client.deliver(CONNECT)
        watched = Recorder(app, lambda _: lambda entry: told.extend(r.id for r in entry.findings))
        with pytest.raises(RuntimeError, match="attached to a different loop"):
            await (watched if recording else wrap(app))(scope(), client.receive, client.send)
        assert client.sent[-1] == send_text("from its own")
        client.close()

    on("asyncio", main)
    found = [k[3] for k in books(config) if k[0] == "protocol_violations"]
    assert (told if recording else found) == ["app.exception"]


def test_a_worker_for_each_thread(config: Config, wrap: Wrap) -> None:
    """A free-threaded server runs a loop in each of its threads."""

    async def serve() -> None:
        client = Client()
        client.deliver(CONNECT, receive_text("a"), DISCONNECT)
        await wrap(echo)(scope(), client.receive, client.send)
        client.close()

    async def main() -> None:
        for _ in range(3):
            await asyncio.to_thread(partial(asyncio.run, serve()))

    on("asyncio", main)
    assert unbalanced(books(config), 3) == []
    assert totals(books(config), "received_messages") == 3


@both
def test_a_stuck_task_can_be_cancelled_only_where_there_is_one(
    config: Config, backend: str
) -> None:
    async def refuses(_scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(CLOSE)

    app = LifecycleMiddleware(refuses, config=replace(config, cancel_stuck_closing=True))

    async def main() -> None:
        peer = Peer([CONNECT])
        await app(scope(), peer.receive, peer.send)

    on(backend, main)
    assert not unbalanced(books(config), 1)


@both
def test_who_sends_without_end_what_is_dropped_lets_others_run(
    config: Config, backend: str
) -> None:
    sent = 0

    async def floods(_scope: Any, receive: Any, send: Any) -> None:
        nonlocal sent
        await receive()
        await send(ACCEPT)
        await receive()
        others = anyio.Event()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(sets, others)
            while not others.is_set() and sent < 1000:
                await send(send_text("more"))
                sent += 1

    async def sets(event: anyio.Event) -> None:
        event.set()

    app = LifecycleMiddleware(floods, config=replace(config, policy="shield"))

    async def main() -> None:
        peer = Peer([CONNECT, DISCONNECT])
        await app(scope(), peer.receive, peer.send)
        assert peer.sent == [ACCEPT]

    on(backend, main)
    assert 0 < sent < 10
