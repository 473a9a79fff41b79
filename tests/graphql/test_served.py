"""What a connection knows of its operations, asked as an integration asks it."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from threading import Thread
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from tests.graphql.books import Books
from tests.graphql.peer import SECONDS, TRANSPORT_WS, scope
from ws_lifecycle_metrics.integrations import graphql_ws
from ws_lifecycle_metrics.integrations.graphql_ws import SERVED, Served
from ws_lifecycle_metrics.store.layout import NS
from ws_lifecycle_metrics.store.workers import existing

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from ws_lifecycle_metrics.integrations.asked import Request

    App = Callable[["Connection"], Awaitable[None]]

OTHERWISE = "otherwise"


class Running:
    """A subscription that goes on."""

    task = None


class Connection:
    """One connection as the application sees it, and its client."""

    def __init__(self, receive: Any, events: asyncio.Queue[Any]) -> None:
        self.receive, self.events = receive, events
        served = SERVED.get()
        assert served is not None
        self.served: Served = served

    async def hear(self, kind: str, **more: Any) -> None:
        """Receive a frame of this type, by default of the operation "1"."""
        frame = {"id": "1", "type": kind, **more}
        self.events.put_nowait({"type": "websocket.receive", "text": json.dumps(frame)})
        await self.receive()

    def began(self) -> Request | None:
        """Begin the next operation."""
        return self.served.operation_began()

    def why(self, request: Request | None) -> str:
        """Return why it was broken off, which no message of the application's explains."""
        return self.served.end_reason(request, OTHERWISE)


def serve(books: Books, play: App) -> None:
    """Accept a connection, play, and return with it open."""
    events: asyncio.Queue[Any] = asyncio.Queue()

    async def app(_scope: Any, receive: Any, send: Any) -> None:
        events.put_nowait({"type": "websocket.connect"})
        await receive()
        await send({"type": "websocket.accept", "subprotocol": TRANSPORT_WS})
        await play(Connection(receive, events))

    async def send(_message: Any) -> None:
        pass

    async def main() -> None:
        served = scope("websocket", subprotocols=[TRANSPORT_WS])
        await asyncio.wait_for(books.wrap(app)(served, events.get, send), SECONDS)

    asyncio.run(main())


@pytest.fixture
def books(tmp_path: Path) -> Books:
    return Books(tmp_path)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The time at which messages come, in nanoseconds."""
    clock = SimpleNamespace(now=10 * NS)
    clock.monotonic_ns = lambda: clock.now
    monkeypatch.setattr(graphql_ws, "time", clock)
    return clock


def test_a_complete_of_what_has_ended_is_not_the_next_ones(books: Books):
    async def play(connection: Connection) -> None:
        await connection.hear("subscribe")
        connection.served.operation_ended(connection.began())
        await connection.hear("complete")
        await connection.hear("subscribe")
        assert connection.why(connection.began()) == OTHERWISE

    serve(books, play)


def test_a_complete_that_the_end_overtakes_is_not_the_next_ones(books: Books):
    async def play(connection: Connection) -> None:
        await connection.hear("subscribe")
        first = connection.began()
        await connection.hear("complete")
        connection.served.operation_ended(first)
        await connection.hear("subscribe")
        assert connection.why(connection.began()) == OTHERWISE

    serve(books, play)


@pytest.mark.parametrize("late", ["2", "of nobody", 2])
def test_a_complete_is_that_of_its_own_operation(books: Books, late: object):
    async def play(connection: Connection) -> None:
        await connection.hear("subscribe")
        first = connection.began()
        await connection.hear("subscribe", id="2")
        second = connection.began()
        connection.served.operation_ended(second)
        await connection.hear("complete", id=late)
        assert connection.why(first) == OTHERWISE
        await connection.hear("stop")
        assert connection.why(first) == "client_complete"

    serve(books, play)


def test_an_operation_that_nobody_saw_asked_for_leaves_no_debt(books: Books):
    """Its message had a long payload before the type, for example."""

    async def play(connection: Connection) -> None:
        await connection.hear("connection_init")
        unseen = connection.began()
        assert unseen is None
        connection.served.operation_ended(unseen)
        await connection.hear("subscribe")
        seen = connection.began()
        await connection.hear("complete")
        assert connection.why(unseen) == OTHERWISE
        assert connection.why(seen) == "client_complete"

    serve(books, play)


def test_what_never_began_is_forgotten_once_all_is_quiet(books: Books, clock: SimpleNamespace):
    async def play(connection: Connection) -> None:
        await connection.hear("subscribe", id="0")
        await connection.hear("complete", id="0")
        clock.now += NS + 1
        await connection.hear("connection_init")
        assert connection.began() is None

    serve(books, play)


def test_what_runs_is_not_forgotten_however_quiet_it_is(books: Books, clock: SimpleNamespace):
    async def play(connection: Connection) -> None:
        await connection.hear("subscribe")
        running = connection.began()
        clock.now += NS + 1
        await connection.hear("complete")
        assert connection.why(running) == "client_complete"

    serve(books, play)


def test_a_receive_given_up_does_not_cancel_what_comes_later(books: Books):
    async def play(connection: Connection) -> None:
        waiting = asyncio.create_task(connection.receive())
        await asyncio.sleep(0)
        waiting.cancel()
        with suppress(asyncio.CancelledError):
            await waiting
        assert connection.why(None) == "cancelled"
        await connection.hear("subscribe")
        assert connection.why(None) == OTHERWISE

    serve(books, play)


def test_what_outlives_its_connection_was_cancelled_and_is_forgotten(books: Books):
    kept: list[Connection] = []
    running = Running()

    async def play(connection: Connection) -> None:
        kept.append(connection)
        connection.served.subscription_began(running)

    serve(books, play)
    worker = existing(books.config)
    assert worker is not None
    assert len(worker.left) == 1
    assert kept[0].why(None) == "cancelled"
    kept[0].served.subscription_ended(running)
    assert not worker.left


def serve_http(books: Books, play: Callable[[Served], Awaitable[None]]) -> None:
    """Serve a scope whose operations may run in threads, on an event loop of its own."""

    async def app(_scope: Any, _receive: Any, _send: Any) -> None:
        served = SERVED.get()
        assert served is not None
        await play(served)

    asyncio.run(books.wrap(app)(scope("http"), None, None))


def test_what_another_thread_left_comes_before_what_is_done_after_it(books: Books):
    done: list[str] = []

    async def play(served: Served) -> None:
        other = Thread(target=served.run, args=[lambda: done.append("theirs")])
        other.start()
        other.join(SECONDS)  # the loop gets no turn to take it
        assert not done
        served.run(lambda: done.append("ours"))
        assert done == ["theirs", "ours"]

    serve_http(books, play)


def test_each_loop_of_a_thread_takes_what_others_leave_to_it(books: Books):
    async def play(served: Served) -> None:
        done = asyncio.Event()
        await asyncio.to_thread(served.run, done.set)
        await asyncio.wait_for(done.wait(), SECONDS)

    for _ in range(2):
        serve_http(books, play)


def test_what_is_left_to_a_loop_that_has_ended_is_taken_by_the_next_scope(books: Books):
    kept: list[Served] = []
    done: list[str] = []

    async def keep(served: Served) -> None:
        kept.append(served)

    async def leave() -> None:
        for what in ("first", "second"):
            await asyncio.to_thread(kept[0].run, lambda what=what: done.append(what))

    serve_http(books, keep)
    asyncio.run(leave())
    assert not done
    serve_http(books, keep)
    assert done == ["first", "second"]


@pytest.mark.parametrize("beside", [True, False], ids=["beside a WebSocket", "alone"])
def test_what_a_request_counts_follows_its_worker_to_a_new_segment(
    books: Books, tmp_path: Path, beside: bool
):
    async def renew(_scope: Any, _receive: Any, _send: Any) -> None:
        served = SERVED.get()
        assert served is not None
        for path in tmp_path.rglob("*.segment"):
            path.unlink()
        served.worker.watch._renew()
        assert served.worker is existing(books.config)

    async def play(_connection: Connection) -> None:
        await books.wrap(renew)(scope("http"), None, None)

    if beside:
        serve(books, play)
    else:
        asyncio.run(books.wrap(renew)(scope("http"), None, None))
