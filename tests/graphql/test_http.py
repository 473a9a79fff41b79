"""Operations over HTTP: single responses, server-sent events and multipart, sync views too."""

from __future__ import annotations

import asyncio
import gc
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from tests.graphql.apps import PAGES, STREAMS, set_up_django
from tests.graphql.books import Books
from tests.graphql.peer import SECONDS, Request
from tests.graphql.schema import bare, new_signals, observed, sync_schema
from ws_lifecycle_metrics import catalog
from ws_lifecycle_metrics.integrations.strawberry import LifecycleExtension
from ws_lifecycle_metrics.store.operations import Operation

if TYPE_CHECKING:
    from pathlib import Path

KINDS = {
    "server-sent events": "text/event-stream",
    "multipart": "multipart/mixed;subscriptionSpec=1.0",
}


def ask(app: Any, query: str, accept: str = "application/json", **options: Any) -> Request:
    async def run() -> Request:
        new_signals()
        request = Request(app, {"query": query}, accept)
        for name, value in options.items():
            setattr(request, name, value)
        with suppress(TimeoutError):
            await request.run()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:  # a response that waits for the next result of the source
            await asyncio.wait(others, timeout=0.2)
        for task in others:
            task.cancel()
        if others:
            await asyncio.wait(others, timeout=SECONDS)
        return request

    result = asyncio.run(run())
    gc.collect()
    return result


def of(*extensions: Any, integration: str) -> Any:
    if integration == "django sync":
        return PAGES[integration](sync_schema(*extensions))
    return PAGES[integration](observed() if extensions else bare())


@pytest.mark.parametrize("integration", PAGES)
@pytest.mark.parametrize(
    ("query", "requests"),
    [
        ("query Greet { hello }", {("Greet", "query"): 1}),
        ("{ hello }", {("anonymous", "query"): 1}),
        ("query Wrong { nowhere }", {("other", "query"): 1}),
        ("query {{", {}),
    ],
    ids=["named", "anonymous", "invalid", "no GraphQL"],
)
def test_query(integration: str, query: str, requests: Any, tmp_path: Path):
    set_up_django()
    books = Books(tmp_path)
    request = ask(books.wrap(of(LifecycleExtension, integration=integration)), query)
    plain = ask(of(integration=integration), query)
    assert (request.status, request.body) == (plain.status, plain.body)
    assert books.series(catalog.GRAPHQL_REQUESTS) == requests
    assert books.ends() == {}
    books.at_rest()


@pytest.mark.parametrize("integration", STREAMS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("query", "ends"),
    [
        ("subscription Count { count }", {"completed": 1}),
        ("subscription Boom { boom }", {"error": 1}),
        ("subscription Wrong { nowhere }", {"rejected": 1}),
    ],
    ids=["natural end", "source raises", "validation error"],
)
def test_stream(integration: str, kind: str, query: str, ends: Any, tmp_path: Path):
    books, accept = Books(tmp_path), KINDS[kind]
    set_up_django()
    request = ask(books.wrap(STREAMS[integration](observed())), query, accept)
    plain = ask(STREAMS[integration](bare()), query, accept)
    assert (request.status, request.body) == (plain.status, plain.body)
    assert books.ends() == ends
    books.at_rest()


@pytest.mark.parametrize("integration", STREAMS)
@pytest.mark.parametrize("kind", KINDS)
def test_client_leaves_a_stream(integration: str, kind: str, tmp_path: Path):
    # HTTP tells an operation nothing of why: its response is cancelled or left unfinished, or,
    # on Channels, goes on until the server's patience is at its end.
    books = Books(tmp_path)
    set_up_django()
    app = books.wrap(STREAMS[integration](observed()))
    ask(app, "subscription Slow { slow }", KINDS[kind], leave_after=1, patience=0.3)
    assert list(books.ends().items()) in ([("cancelled", 1)], [("consumer_gone", 1)])
    books.at_rest()


def test_thread_of_a_sync_view_leaves_its_counts_to_the_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The words are written by one thread, whichever thread the operations run in."""
    books, runners, writers = Books(tmp_path), set(), set()

    class Noting(LifecycleExtension):
        def operation_name(self, context: Any) -> str | None:
            runners.add(threading.get_ident())
            return super().operation_name(context)

    def note_writer(count: Any) -> Any:
        def counted(*arguments: Any) -> None:
            writers.add(threading.get_ident())
            count(*arguments)

        return counted

    monkeypatch.setattr(Operation, "began", note_writer(Operation.began))
    monkeypatch.setattr(Operation, "finished", note_writer(Operation.finished))
    schema = sync_schema(Noting)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.gather(
            *(asyncio.to_thread(schema.execute_sync, "query Greet { hello }") for _ in range(50))
        )

    asyncio.run(books.wrap(app)({"type": "http"}, None, None))
    assert threading.get_ident() not in runners
    assert writers == {threading.get_ident()}
    assert books.series(catalog.GRAPHQL_REQUESTS) == {("Greet", "query"): 50}
    books.at_rest()
