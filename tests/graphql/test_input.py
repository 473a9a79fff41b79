"""Bad input from clients: bounded, neutralised, counted, and never raised by us."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.graphql.apps import SOCKETS, asgi, served
from tests.graphql.books import Books
from tests.graphql.peer import LEGACY, PROTOCOLS, SECONDS, TRANSPORT_WS, Peer
from tests.graphql.schema import make_schema, new_signals
from ws_lifecycle_metrics import catalog
from ws_lifecycle_metrics.integrations.strawberry import LifecycleExtension

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1 << 20
BAD: dict[str, Any] = {
    "empty list": "[]",
    "null": "null",
    "number": "3",
    "string": '"complete"',
    "no JSON": "{{{",
    "empty": "",
    "no type": "{}",
    "type of a wrong type": '{"type": ["complete"]}',
    "unknown type": '{"type": "nonsense"}',
    "binary": b'{"type": "complete", "id": "1"}',
    "1 MiB of text": '{"type": "pong", "payload": "' + "x" * MIB + '"}',
    "1 MiB of binary": b"\x00" * MIB,
    "1 MiB of brackets": "[" * MIB,
    "complete of nothing": '{"type": "complete", "id": "nothing"}',
    "id of a wrong type": '{"type": "complete", "id": {"a": 1}}',
    "id is a list": '{"id": [], "type": "subscribe", "payload": {"query": "{ hello }"}}',
    "payload of a wrong type": '{"id": "9", "type": "subscribe", "payload": [1]}',
    "payload names a type": '{"id": "9", "payload": {"type": "complete"}, "type": "pong"}',
    "lone surrogate": '{"id": "\\ud800", "type": "complete"}',
}


async def receive(app: Any, protocol: str, frame: Any) -> tuple[list[Any], str]:
    new_signals()
    peer = Peer(app, protocol)
    await peer.initialised()
    peer.subscribe("subscription Slow { slow }")
    await peer.until("next")
    (peer.binary if isinstance(frame, bytes) else peer.text)(frame)
    peer.leave()
    how = await peer.end()
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:  # an application that raised may leave them
        task.cancel()
    if others:
        await asyncio.wait(others, timeout=SECONDS)
    return peer.sent, how


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("frame", BAD.values(), ids=BAD.keys())
@pytest.mark.parametrize("integration", SOCKETS)
def test_bad_frame_changes_nothing_and_the_books_balance(
    integration: str, frame: Any, protocol: str, tmp_path: Path, logged: list[str]
):
    books = Books(tmp_path)
    app = books.wrap(served(integration, watched=True))
    seen = asyncio.run(receive(app, protocol, frame))
    assert sum(books.ends().values()) == 1
    if frame == BAD["payload names a type"]:
        assert set(books.ends()) <= {"disconnected", "cancelled"}  # not taken for a complete
    assert not {"completed", "error", "rejected"} & set(books.ends())
    assert "a fault in ws_lifecycle_metrics" not in "".join(logged)
    books.at_rest()
    assert seen == asyncio.run(receive(served(integration, watched=False), protocol, frame))


NAMES: dict[str, Any] = {
    "10 kB": "n" * 10_000,
    "control characters": "a\x1b[31m\x00\u202eb",
    "lone surrogate": "\ud800",
    "number": 7,
    "list": ["Count"],
    "object": {"a": 1},
    "empty": "",
}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES.keys())
def test_bad_operation_name_is_a_rejection_without_a_series(name: Any, tmp_path: Path):
    books = Books(tmp_path)

    async def run() -> None:
        new_signals()
        peer = Peer(books.wrap(asgi(make_schema(LifecycleExtension))), TRANSPORT_WS)
        await peer.initialised()
        peer.subscribe("subscription Count { count }", operationName=name)
        await peer.message()
        peer.leave()
        await peer.end()

    asyncio.run(run())
    assert books.series(catalog.SUBSCRIPTION_ENDS) in (
        {("other", "rejected"): 1},
        {("anonymous", "rejected"): 1},
    )
    books.at_rest()


def test_a_rejection_without_a_name_is_anonymous_whatever_came_before(tmp_path: Path):
    books = Books(tmp_path)

    async def run() -> None:
        app = books.wrap(asgi(make_schema(LifecycleExtension)))
        for query in ("subscription {{{", "subscription { count(to: 1) }", "subscription {{{"):
            peer = Peer(app, LEGACY)
            await peer.initialised()
            peer.subscribe(query)
            await peer.until("error" if "{{{" in query else "complete")
            peer.leave()
            await peer.end()

    asyncio.run(run())
    assert books.series(catalog.SUBSCRIPTION_ENDS) == {
        ("anonymous", "rejected"): 2,
        ("anonymous", "completed"): 1,
    }
    books.at_rest()


@pytest.mark.parametrize(
    ("query", "counted_as"),
    [
        ("subscription Valid($to: Int!) { count(to: $to) }", "Valid"),
        ("subscription Invalid($to: Int!) { nowhere(to: $to) }", "other"),
    ],
    ids=["for its variables", "before"],
)
def test_a_rejected_name_has_a_place_if_it_was_valid(
    query: str, counted_as: str, tmp_path: Path, logged: list[str]
):
    books = Books(tmp_path)

    async def run() -> None:
        peer = Peer(books.wrap(asgi(make_schema(LifecycleExtension))), TRANSPORT_WS)
        await peer.initialised()
        peer.subscribe(query)
        await peer.until("error")
        peer.leave()
        await peer.end()

    asyncio.run(run())
    assert books.series(catalog.SUBSCRIPTION_ENDS) == {(counted_as, "rejected"): 1}
    assert books.series(catalog.GRAPHQL_REQUESTS) == {(counted_as, "subscription"): 1}
    books.at_rest()


async def many_names(app: Any, names: list[str]) -> None:
    peer = Peer(app, TRANSPORT_WS)
    await peer.initialised()
    for name in names:
        peer.text(
            json.dumps(
                {
                    "id": name[:50],
                    "type": "subscribe",
                    "payload": {"query": f"subscription {name} {{ count(to: 1) }}"},
                }
            )
        )
        await peer.until("complete")
    peer.leave()
    await peer.end()


def test_ten_thousand_names_take_fifty_places(tmp_path: Path):
    books = Books(tmp_path, operations=("Vital",))
    # As many as matter here; each of the rest costs a lookup.
    names = [f"N{i}" for i in range(500)]
    app = books.wrap(asgi(make_schema(LifecycleExtension)))
    asyncio.run(many_names(app, names))
    with_worker = asyncio.run(ten_thousand(books))
    asyncio.run(many_names(app, ["Vital", "L" * 10_000]))
    found = {labels[0] for labels in books.series(catalog.SUBSCRIPTION_ENDS)}
    assert len(found) == 50 + 1  # and `other`; `Vital` has its place among the 50
    assert {"Vital", "other", "N0"} <= found
    assert books.series(catalog.LABEL_OVERFLOW) == {("graphql_operation_name",): with_worker}
    assert books.series(catalog.SUBSCRIPTION_ENDS)["other", "completed"] == 500 - 49 + 1
    books.at_rest()


async def ten_thousand(books: Books) -> int:
    """Name 10,000 operations to the worker; return how many overflowed, with those to come."""
    from ws_lifecycle_metrics.store.workers import current

    worker = current(books.config)
    for i in range(10_000):
        worker.operations.get(f"Invented{i}", admit=True)
    return (500 - 49) + 10_000 + 1


def test_query_text_and_variables_are_nowhere(tmp_path: Path, logged: list[str]):
    books = Books(tmp_path)
    app = books.wrap(asgi(make_schema(LifecycleExtension)))

    async def run() -> None:
        new_signals()
        peer = Peer(app, TRANSPORT_WS)
        await peer.initialised()
        peer.subscribe(
            "subscription Count($secret1: Int!) { secret2: count(to: $secret1) }",
            variables={"secret1": 1, "secret3": "x"},
        )
        await peer.until("complete")
        peer.subscribe("subscription Bad { secret4 }", id="2")
        await peer.until("error")
        peer.leave()
        await peer.end()

    asyncio.run(run())
    segments = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"Count" in segments
    assert b"secret" not in segments
    assert not [line for line in logged if "secret" in line and "ws_lifecycle" in line]


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("integration", SOCKETS)
def test_the_order_of_a_messages_keys_means_nothing(
    integration: str, protocol: str, tmp_path: Path
):
    books = Books(tmp_path)

    async def run() -> None:
        signals = new_signals()
        peer = Peer(books.wrap(served(integration, watched=True)), protocol)
        await peer.open()
        peer.text('{"payload": {}, "type": "connection_init"}')
        await peer.until("connection_ack")
        begin = "subscribe" if protocol == TRANSPORT_WS else "start"
        query = '{"query": "subscription Slow { slow }"}'
        peer.text(f'{{"id": "1", "payload": {query}, "type": "{begin}"}}')
        await peer.until("next")
        peer.complete()
        await asyncio.wait_for(signals.ended.wait(), SECONDS)
        peer.leave()
        await peer.end()

    asyncio.run(run())
    assert books.ends() == {"client_complete": 1}
