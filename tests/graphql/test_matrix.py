"""Integrations by protocols by ends: one end each, for the right reason, and nothing changed."""

from __future__ import annotations

import asyncio
import gc
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from tests.graphql.apps import SOCKETS, served
from tests.graphql.books import Books
from tests.graphql.ends import ENDS
from tests.graphql.peer import LEGACY, PROTOCOLS, SECONDS, TRANSPORT_WS, Peer
from tests.graphql.schema import bare, new_signals, observed
from ws_lifecycle_metrics import catalog

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

REASONS: dict[str, dict[str, int]] = {
    "natural end": {"completed": 1},
    "source raises": {"error": 1},
    "fields fail in every result": {"completed": 1},
    "client complete": {"client_complete": 1},
    "client disconnect": {"disconnected": 1},
    "late complete of another": {"completed": 1, "disconnected": 1},
    "complete of one of two": {"client_complete": 1, "disconnected": 1},
    "abrupt loss": {"disconnected": 1},
    "send finds the client gone": {"disconnected": 1},
    "send fails": {"consumer_gone": 1},
    "validation error": {"rejected": 1},
    "syntax error": {"rejected": 1},
    "unknown operation": {"rejected": 1},
    "refused by the source": {"error": 1},
    "duplicate id": {"disconnected": 1},
    "complete in the same burst": {"completed": 1},
    "app task cancelled": {"cancelled": 1},
}


UNWANTED = ("detach", "destroyed", "a fault in ws_lifecycle_metrics")


def reasons(integration: str, protocol: str, end: str) -> dict[str, int]:
    if (protocol, end) == (LEGACY, "duplicate id"):
        return {"cancelled": 1, "disconnected": 1}  # the newer one takes its place
    if (protocol, end) == (LEGACY, "send fails"):
        return {"disconnected": 1}  # left to the garbage collector, it outlives the connection
    if (integration, end) == ("channels", "complete in the same burst"):
        return {"client_complete": 1, "completed": 1}  # elsewhere the first one never begins
    return REASONS[end]


async def play(app: Any, protocol: str, end: str) -> tuple[list[Any], str]:
    """Run one script; return all that the application sent, and how it ended."""
    new_signals()
    peer = Peer(app, protocol)
    await ENDS[end](peer)
    how = await peer.end()
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:  # what Strawberry leaves behind
        task.cancel()
    if others:
        await asyncio.wait(others, timeout=SECONDS)
    return peer.sent, how


def run(app: Any, protocol: str, end: str) -> tuple[list[Any], str]:
    result = asyncio.run(play(app, protocol, end))
    gc.collect()
    return result


@pytest.fixture(autouse=True)
def _quick_collections() -> Iterator[None]:
    gc.freeze()  # the modules of five frameworks need not be searched for what a test left
    yield
    gc.unfreeze()


cells = pytest.mark.parametrize(
    ("integration", "protocol", "end"),
    [(i, p, e) for i in SOCKETS for p in PROTOCOLS for e in ENDS],
)


@cells
def test_one_end_for_the_right_reason_and_the_same_frames(
    integration: str, protocol: str, end: str, tmp_path: Path, logged: list[str]
):
    books = Books(tmp_path)
    seen = run(books.wrap(served(integration, watched=True)), protocol, end)
    assert books.ends() == reasons(integration, protocol, end)
    books.at_rest()
    assert not {word for word in UNWANTED if word in "".join(logged)}
    assert seen == run(served(integration, watched=False), protocol, end)


async def never_initialised(app: Any) -> Peer:
    peer = Peer(app, TRANSPORT_WS)
    await peer.open()
    assert (await peer.message())["type"] == "websocket.close"
    await peer.end()
    return peer


@pytest.mark.parametrize("integration", SOCKETS)
def test_init_timeout_is_a_close_by_its_code_and_no_end(integration: str, tmp_path: Path):
    make, wait = SOCKETS[integration], timedelta(milliseconds=20)
    books = Books(tmp_path)
    app = books.wrap(make(observed(), connection_init_wait_timeout=wait))
    seen = asyncio.run(never_initialised(app))
    plain = make(bare(), connection_init_wait_timeout=wait)
    assert seen.sent == asyncio.run(never_initialised(plain)).sent
    assert {labels[1:] for labels in books.series(catalog.CLOSES)} == {("app", "4408")}
    assert books.ends() == {}
    books.at_rest()
