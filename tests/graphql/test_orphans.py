"""Subscriptions that outlive their connection: counted, listed, and forgotten when they end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from tests.graphql.apps import served
from tests.graphql.books import Books
from tests.graphql.ends import ENDS, SLOW, slow_one
from tests.graphql.peer import PROTOCOLS, SECONDS, TRANSPORT_WS, Peer
from tests.graphql.schema import new_signals
from ws_lifecycle_metrics import catalog
from ws_lifecycle_metrics.store import archive
from ws_lifecycle_metrics.store import layout as at
from ws_lifecycle_metrics.store.totals import add_segment

if TYPE_CHECKING:
    from pathlib import Path


async def leave_behind(books: Books, protocol: str) -> Peer:
    """Cancel the application's task on Channels, whose operations then go on."""
    new_signals()
    peer = Peer(books.wrap(served("channels", watched=True)), protocol)
    await ENDS["app task cancelled"](peer)
    assert await peer.end() == "cancelled"
    return peer


async def end_what_was_left() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    assert others
    for task in others:
        task.cancel()
    await asyncio.wait(others, timeout=SECONDS)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_orphan_is_counted_and_listed_until_it_ends(protocol: str, tmp_path: Path):
    books = Books(tmp_path)

    async def run() -> None:
        await leave_behind(books, protocol)
        assert books.number(catalog.SUBSCRIPTION_ORPHANS) == 1
        assert books.series(catalog.GRAPHQL_ACTIVE) == {("Slow", "subscription"): 1}
        assert books.series(catalog.ACTIVE_CONNECTIONS) == {}
        assert books.number(catalog.WORKER_ACTIVE) == 0
        assert books.series(catalog.OLDEST_STATE) == {}
        (orphan,) = books.connections()
        assert (orphan.state, orphan.subscriptions) == ("orphaned", 1)
        assert orphan.subprotocol == protocol
        assert 0 <= orphan.in_state <= orphan.age
        await end_what_was_left()

    asyncio.run(run())
    assert books.ends() == {"cancelled": 1}
    books.at_rest()


def test_record_of_an_orphan_is_not_used_by_the_next_connection(tmp_path: Path):
    books = Books(tmp_path)

    async def run() -> None:
        await leave_behind(books, TRANSPORT_WS)
        peer = Peer(books.wrap(served("asgi", watched=True)), TRANSPORT_WS)
        await slow_one(peer)
        states = sorted(connection.state for connection in books.connections())
        assert states == ["open", "orphaned"]
        peer.leave()
        await peer.end()
        await end_what_was_left()

    asyncio.run(run())
    assert books.ends() == {"cancelled": 1, "disconnected": 1}
    books.at_rest()


def test_dead_worker_loses_neither_counts_nor_finds_the_orphan_lost(tmp_path: Path):
    books = Books(tmp_path)

    async def run() -> dict[Any, Any]:
        await leave_behind(books, TRANSPORT_WS)
        (contents,) = archive_view(books)
        contents.alive = False
        totals: dict[Any, Any] = {}
        add_segment(totals, contents)
        await end_what_was_left()
        return totals

    totals = asyncio.run(run())
    lost = catalog.LOST_CONNECTIONS.name
    assert not any(sum(words) for (name, _), words in totals.items() if name == lost)
    assert totals[catalog.GRAPHQL_REQUESTS.name, ("Slow", "subscription")] == [1]


def archive_view(books: Books) -> Any:
    from ws_lifecycle_metrics.store.directory import Directory, service_path
    from ws_lifecycle_metrics.store.reader import Reader

    with Directory(service_path(books.config.directory, books.config.service)) as directory:
        return archive.read(directory, Reader())[1]


def test_connection_shows_its_subscriptions_and_how_far_it_is(tmp_path: Path):
    books = Books(tmp_path)

    async def run() -> None:
        new_signals()
        peer = Peer(books.wrap(served("asgi", watched=True)), TRANSPORT_WS)
        await peer.open()
        (connection,) = books.connections()
        assert connection.graphql == "connection_init not received"
        peer.say(type="connection_init")
        await peer.frame()
        for id in ("1", "2"):
            peer.subscribe(SLOW, id=id)
            await peer.until("next")
        (connection,) = books.connections()
        assert (connection.graphql, connection.subscriptions) == ("initialised", 2)
        assert connection.close == ""
        peer.leave()
        await peer.end()

    asyncio.run(run())
    books.at_rest()


def test_close_by_the_protocol_is_named(tmp_path: Path):
    books = Books(tmp_path)

    async def run() -> None:
        new_signals()
        peer = Peer(books.wrap(served("channels", watched=True)), TRANSPORT_WS)
        leave, peer.leave = peer.leave, lambda code=1000: None  # type: ignore[method-assign]  # a server that delivers no disconnect
        await peer.open()
        peer.subscribe(SLOW)
        assert (await peer.message())["code"] == 4401
        (connection,) = books.connections()
        assert connection.state == "closing"
        assert connection.graphql == "subscribed before connection_init"
        assert connection.close == "4401 subscribe before acknowledgement"
        leave()
        await peer.end()

    asyncio.run(run())
    books.at_rest()


def test_orphaned_is_no_state_of_the_protocol():
    from ws_lifecycle_metrics.protocol import STATES

    assert len(STATES) < at.ORPHANED


def test_orphan_is_stuck_after_its_time(tmp_path: Path):
    books = Books(tmp_path, stuck_orphan_subscription=1e-6)

    async def run() -> None:
        await leave_behind(books, TRANSPORT_WS)
        (orphan,) = books.connections()
        assert orphan.stuck == "orphan_subscription"
        await end_what_was_left()

    asyncio.run(run())
    books.at_rest()


def test_segment_that_was_removed_costs_no_balance(tmp_path: Path):
    """A new one takes its place, in which what goes on counts as begun, and is counted on."""
    from ws_lifecycle_metrics.store.workers import existing

    books = Books(tmp_path)

    async def run() -> None:
        signals = new_signals()
        peer = Peer(books.wrap(served("asgi", watched=True)), TRANSPORT_WS)
        await slow_one(peer)
        worker = existing(books.config)
        assert worker is not None
        for path in tmp_path.rglob("*.segment"):
            path.unlink()
        worker.watch._renew()
        (connection,) = books.connections()
        assert (connection.subscriptions, connection.graphql) == (1, "initialised")
        assert books.series(catalog.GRAPHQL_ACTIVE) == {("Slow", "subscription"): 1}
        signals.more.set()
        await peer.until("next")
        assert books.series(catalog.SUBSCRIPTION_EVENTS) == {("Slow",): 1}
        peer.leave()
        await peer.end()

    asyncio.run(run())
    assert books.ends() == {"disconnected": 1}
    books.at_rest()
