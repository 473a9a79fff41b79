"""The extension's own faults, the ways to give it, and life without the middleware."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.graphql.apps import asgi
from tests.graphql.books import Books
from tests.graphql.ends import ENDS
from tests.graphql.peer import TRANSPORT_WS, Peer
from tests.graphql.schema import bare, make_schema, new_signals
from tests.graphql.test_matrix import play
from ws_lifecycle_metrics import catalog
from ws_lifecycle_metrics.integrations import strawberry as ours
from ws_lifecycle_metrics.integrations.graphql_ws import Served, Subscriptions
from ws_lifecycle_metrics.integrations.strawberry import LifecycleExtension
from ws_lifecycle_metrics.store.operations import Operation, Operations
from ws_lifecycle_metrics.store.workers import existing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

STEPS: list[tuple[Any, str]] = [
    (LifecycleExtension, "_began"),
    (LifecycleExtension, "_is_shared"),
    (ours._Run, "executes"),
    (ours._Run, "_begin"),
    (ours._Run, "result"),
    (ours._Run, "_early"),
    (ours._Run, "_count"),
    (ours._Run, "ended"),
    (ours._Run, "_reason"),
    (ours._Run, "_finish"),
    (ours._Run, "_learn_type"),
    (ours._Run, "_reject"),
    (Operation, "began"),
    (Operation, "finished"),
    (Operation, "event"),
    (Operation, "event_error"),
    (Operation, "first_event"),
    (Operation, "ended"),
    (Served, "run"),
    (Subscriptions, "_note"),
    (Subscriptions, "subscription_began"),
    (Subscriptions, "subscription_ended"),
    (Subscriptions, "operation_began"),
    (Subscriptions, "operation_ended"),
    (Subscriptions, "end_reason"),
    (Operations, "get"),
]
TRIED = ("natural end", "source raises", "client complete", "client disconnect", "syntax error")


@pytest.mark.parametrize("step", STEPS, ids=lambda step: f"{step[0].__name__}.{step[1]}")
def test_fault_of_ours_never_reaches_the_operation(
    step: tuple[Any, str], tmp_path: Path, logged: list[str], monkeypatch: pytest.MonkeyPatch
):
    def fail(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError("ours")

    books = Books(tmp_path)
    app, plain = books.wrap(asgi(make_schema(LifecycleExtension))), asgi(bare())
    for end in TRIED:
        expected = asyncio.run(play(plain, TRANSPORT_WS, end))
        with monkeypatch.context() as patch:
            patch.setattr(*step, fail)
            assert asyncio.run(play(app, TRANSPORT_WS, end)) == expected
    if step != (Served, "run"):  # what runs the count of faults, too
        assert books.number(catalog.INTERNAL_ERRORS)
    assert "a fault in ws_lifecycle_metrics" in "".join(logged)


def test_a_name_that_cannot_be_told_is_no_fault_of_ours(tmp_path: Path, logged: list[str]):
    class Raising(LifecycleExtension):
        def operation_name(self, context: Any) -> str | None:
            raise LookupError("no such persisted query")

    books = Books(tmp_path)
    asyncio.run(play(books.wrap(asgi(make_schema(Raising))), TRANSPORT_WS, "natural end"))
    assert books.series(catalog.SUBSCRIPTION_ENDS) == {("anonymous", "completed"): 1}
    assert len([line for line in logged if "operation_name raised" in line]) == 1
    books.at_rest()


def test_an_empty_name_is_none(tmp_path: Path):
    class Nameless(LifecycleExtension):
        def operation_name(self, context: Any) -> str | None:
            return ""

    books = Books(tmp_path)
    asyncio.run(play(books.wrap(asgi(make_schema(Nameless))), TRANSPORT_WS, "natural end"))
    assert books.series(catalog.SUBSCRIPTION_ENDS) == {("anonymous", "completed"): 1}
    books.at_rest()


def test_without_the_middleware_one_line_says_that_nothing_is_counted(logged: list[str]):
    app = asgi(make_schema(LifecycleExtension))
    for _ in range(3):
        seen = asyncio.run(play(app, TRANSPORT_WS, "natural end"))
    assert seen == asyncio.run(play(asgi(bare()), TRANSPORT_WS, "natural end"))
    said = [line for line in logged if "LifecycleExtension" in line]
    assert len(said) == 1
    assert "no LifecycleMiddleware" in said[0]


def given(way: str) -> Any:
    if way == "class":
        return LifecycleExtension
    if way == "factory":
        return lambda: LifecycleExtension()
    if way == "older factory":
        return lambda: LifecycleExtension(execution_context=None)

    class Named(LifecycleExtension):
        def operation_name(self, context: Any) -> str | None:
            return "Renamed"

    return Named


@pytest.mark.parametrize("way", ["class", "factory", "older factory", "subclass"])
def test_given_as_class_factory_or_subclass(way: str, tmp_path: Path, logged: list[str]):
    books = Books(tmp_path)
    app = books.wrap(asgi(make_schema(given(way))))
    asyncio.run(play(app, TRANSPORT_WS, "natural end"))
    name = "Renamed" if way == "subclass" else "Count"
    assert books.series(catalog.SUBSCRIPTION_EVENTS) == {(name,): 3}
    assert books.series(catalog.SUBSCRIPTION_ENDS) == {(name, "completed"): 1}
    assert "instance" not in "".join(logged)
    books.at_rest()


@pytest.mark.filterwarnings("ignore:Passing an extension instance:DeprecationWarning")
def test_given_as_instance_counts_ends_and_warns_once(tmp_path: Path, logged: list[str]):
    books = Books(tmp_path)
    app = books.wrap(asgi(make_schema(LifecycleExtension())))

    async def two_at_once() -> None:
        new_signals()
        first, second = Peer(app, TRANSPORT_WS), Peer(app, TRANSPORT_WS)
        await asyncio.gather(*(ENDS["natural end"](peer) for peer in (first, second)))
        await asyncio.gather(first.end(), second.end())

    asyncio.run(two_at_once())
    assert books.series(catalog.SUBSCRIPTION_ENDS) == {("Count", "completed"): 2}
    assert books.series(catalog.SUBSCRIPTION_EVENTS) == {}
    assert len([line for line in logged if "as an instance" in line]) == 1
    books.at_rest()


def test_results_errors_and_the_first_one_are_counted(tmp_path: Path):
    books = Books(tmp_path)
    app = books.wrap(asgi(make_schema(LifecycleExtension)))
    queries = {
        "subscription Fields { brokenFields(to: 3) { n } }": {"completed": 1},
        "subscription Boom { boom }": {"error": 1},
        "subscription Refused { refused }": {"error": 1},
        "subscription None { count(to: 0) }": {"completed": 1},
    }

    async def run() -> None:
        peer = Peer(app, TRANSPORT_WS)
        await peer.initialised()
        for query in queries:
            peer.subscribe(query)
            await peer.until("complete")
        peer.leave()
        await peer.end()

    asyncio.run(run())
    assert books.series(catalog.SUBSCRIPTION_EVENTS) == {
        ("Fields",): 3,
        ("Boom",): 2,
        ("Refused",): 1,
    }
    assert books.series(catalog.SUBSCRIPTION_ERRORS) == {
        ("Fields",): 3,
        ("Boom",): 1,
        ("Refused",): 1,
    }
    assert books.series(catalog.SUBSCRIPTION_FIRST_EVENT) == {
        ("Fields",): 1,
        ("Boom",): 1,
        ("Refused",): 1,
    }
    books.at_rest()


def test_results_after_one_with_errors_have_none(tmp_path: Path):
    books = Books(tmp_path)

    async def run() -> None:
        peer = Peer(books.wrap(asgi(make_schema(LifecycleExtension))), TRANSPORT_WS)
        await peer.initialised()
        peer.subscribe("subscription Uneven { uneven { n } }")
        await peer.until("complete")
        peer.leave()
        await peer.end()

    began = time.monotonic()
    asyncio.run(run())
    elapsed = time.monotonic() - began
    assert books.series(catalog.SUBSCRIPTION_EVENTS) == {("Uneven",): 3}
    assert books.series(catalog.SUBSCRIPTION_ERRORS) == {("Uneven",): 1}
    first = books.seconds(catalog.SUBSCRIPTION_FIRST_EVENT)
    whole = books.seconds(catalog.GRAPHQL_DURATION)
    assert 0 < first <= whole <= elapsed
    books.at_rest()


def test_of_operations_that_are_over_the_connection_keeps_nothing(tmp_path: Path):
    books = Books(tmp_path)

    async def run() -> dict[str | None, Any]:
        peer = Peer(books.wrap(asgi(make_schema(LifecycleExtension))), TRANSPORT_WS)
        await peer.initialised()
        for id, query in enumerate(("{ hello }", "subscription { count }", "{ unknown }")):
            peer.subscribe(query, id=str(id))
            await peer.until("error" if "unknown" in query else "complete")
        peer.say(type="ping")  # what it waits for comes when the operation before has ended
        await peer.until("pong")
        worker = existing(books.config)
        assert worker is not None
        (conversation,) = worker.live.values()
        kept = dict(conversation._served._asked._by_id)
        peer.leave()
        await peer.end()
        return kept

    assert asyncio.run(run()) == {}


def test_hooks_are_the_cheap_ones():
    defined: Iterator[str] = iter(vars(LifecycleExtension))
    assert not {"resolve", "on_stream_result"} & set(defined)
