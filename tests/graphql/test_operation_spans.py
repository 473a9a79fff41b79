"""Each operation has one span that has ended, with the right status, however it ends."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased, Sampler
from opentelemetry.trace import StatusCode

from tests.graphql.apps import served
from tests.graphql.books import Books
from tests.graphql.ends import ENDS
from tests.graphql.peer import PROTOCOLS, TRANSPORT_WS, Peer, Request
from tests.graphql.test_matrix import UNWANTED, reasons, run
from ws_lifecycle_metrics import catalog

if TYPE_CHECKING:
    from pathlib import Path

    from opentelemetry.sdk.trace import ReadableSpan

TRACE = "0af7651916cd43dd8448eb211c80319c"
EXTENSIONS = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}


class Traced:
    """The books of a directory, and the spans of what they tell of."""

    def __init__(self, directory: Path, sampler: Sampler | None = None) -> None:
        self.exporter = InMemorySpanExporter()
        provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.books = Books(directory, tracer_provider=provider)

    def operations(self) -> list[ReadableSpan]:
        found = self.exporter.get_finished_spans()
        return [s for s in found if "graphql.operation.end_reason" in (s.attributes or {})]


@pytest.mark.parametrize("integration", ["asgi", "channels"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("end", ENDS)
def test_each_operation_has_one_span_with_the_right_status(
    integration: str, protocol: str, end: str, tmp_path: Path, logged: list[str]
):
    traced = Traced(tmp_path)
    run(traced.books.wrap(served(integration, watched=True)), protocol, end)
    spans = traced.operations()
    found = Counter(span.attributes["graphql.operation.end_reason"] for span in spans)
    assert found == reasons(integration, protocol, end) == traced.books.ends()
    for span in spans:
        failed = span.attributes["graphql.operation.end_reason"] == "error"
        assert span.status.status_code is (StatusCode.ERROR if failed else StatusCode.UNSET)
        assert span.end_time >= span.start_time
        assert len(span.links) == 1
    assert not {word for word in UNWANTED if word in "".join(logged)}
    events = sum(span.attributes.get("graphql.subscription.events", 0) for span in spans)
    assert events == traced.books.number(catalog.SUBSCRIPTION_EVENTS)


async def subscribe(app: Any, payload: dict[str, Any]) -> None:
    peer = Peer(app, TRANSPORT_WS)
    await peer.initialised()
    peer.say(id="1", type="subscribe", payload=payload)
    await peer.until("complete")
    peer.leave()
    await peer.end()


COUNT = {"query": "subscription Count { count(to: 3) }", "operationName": "Count"}


def test_a_subscription_is_named_counted_and_linked(tmp_path: Path):
    traced = Traced(tmp_path)
    asyncio.run(subscribe(traced.books.wrap(served("asgi", watched=True)), COUNT))
    (span,) = traced.operations()
    assert span.name == "subscription Count"
    assert dict(span.attributes) == {
        "graphql.operation.type": "subscription",
        "graphql.operation.name": "Count",
        "graphql.operation.end_reason": "completed",
        "graphql.subscription.events": 3,
        "graphql.subscription.event_errors": 0,
    }
    handshake = next(s for s in traced.exporter.get_finished_spans() if s.name.startswith("GET"))
    assert span.parent is None
    assert [link.context for link in span.links] == [handshake.context]


def test_the_exception_of_a_source_is_on_the_span_without_its_message(tmp_path: Path):
    traced = Traced(tmp_path)
    boom = {"query": "subscription Boom { boom }"}
    asyncio.run(subscribe(traced.books.wrap(served("asgi", watched=True)), boom))
    (span,) = traced.operations()
    assert span.status.status_code is StatusCode.ERROR
    assert span.attributes["error.type"] == "RuntimeError"
    (event,) = span.events
    assert event.attributes["exception.stacktrace"].endswith("Subscription.boom")
    assert "the source's" not in repr([span.attributes, event.attributes, span.status])


def test_of_messages_in_one_burst_each_has_its_own_parent(tmp_path: Path):
    traced = Traced(tmp_path)

    async def burst() -> None:
        peer = Peer(traced.books.wrap(served("asgi", watched=True)), TRANSPORT_WS)
        await peer.initialised()
        peer.say(id="1", type="subscribe", payload={**COUNT, "extensions": EXTENSIONS})
        peer.say(id="2", type="subscribe", payload=COUNT)
        await peer.until("complete")
        await peer.until("complete")
        peer.leave()
        await peer.end()

    asyncio.run(burst())
    parents = [span.parent for span in traced.operations()]
    assert len(parents) == 2
    assert [f"{p.trace_id:032x}" for p in parents if p is not None] == [TRACE]


@pytest.mark.parametrize(
    "extensions",
    [
        None,
        [],
        "traceparent",
        {"traceparent": 5},
        {"traceparent": "x" * 10_000},
        {"traceparent": {}},
    ],
    ids=["null", "a list", "a str", "a number", "long", "an object"],
)
def test_extensions_of_any_kind_change_nothing(extensions: Any, tmp_path: Path, logged: list[str]):
    traced = Traced(tmp_path)
    app = traced.books.wrap(served("asgi", watched=True))
    asyncio.run(subscribe(app, {**COUNT, "extensions": extensions}))
    (span,) = traced.operations()
    assert span.parent is None
    assert traced.books.ends() == {"completed": 1}
    assert not {word for word in UNWANTED if word in "".join(logged)}


def test_a_message_with_a_traceparent_is_sampled_by_it_alone(tmp_path: Path):
    traced = Traced(tmp_path, ParentBased(ALWAYS_OFF))
    app = traced.books.wrap(served("asgi", watched=True))
    asyncio.run(subscribe(app, COUNT))
    assert traced.operations() == []
    asyncio.run(subscribe(app, {**COUNT, "extensions": EXTENSIONS}))
    (span,) = traced.operations()
    assert f"{span.context.trace_id:032x}" == TRACE
    assert [s.name for s in traced.exporter.get_finished_spans()] == ["subscription Count"]


def test_results_with_errors_are_counted_on_the_span(tmp_path: Path):
    traced = Traced(tmp_path)
    uneven = {"query": "subscription Uneven { uneven { n } }"}
    asyncio.run(subscribe(traced.books.wrap(served("asgi", watched=True)), uneven))
    (span,) = traced.operations()
    assert span.attributes["graphql.subscription.events"] == 3
    assert span.attributes["graphql.subscription.event_errors"] == 1


@pytest.mark.parametrize("extensions", [EXTENSIONS, None], ids=["with a parent", "without"])
def test_a_request_over_http_may_name_its_parent(extensions: Any, tmp_path: Path):
    traced = Traced(tmp_path)
    body = {"query": "query Hello { hello }", "extensions": extensions}
    request = Request(traced.books.wrap(served("asgi", watched=True)), body)
    asyncio.run(request.run())
    assert request.status == 200
    (span,) = traced.operations()
    assert span.name == "query Hello"
    assert (f"{span.context.trace_id:032x}" == TRACE) is (extensions is not None)


ALONE = """
import asyncio, sys
import strawberry
from ws_lifecycle_metrics import Config, LifecycleMiddleware
from ws_lifecycle_metrics.integrations.strawberry import LifecycleExtension

@strawberry.type
class Query:
    hello: str = "hi"

schema = strawberry.Schema(Query, extensions=[LifecycleExtension])

async def app(scope, receive, send):
    await schema.execute("query Kind { __typename }")

def serve():
    config = Config(directory=sys.argv[1])
    asyncio.run(LifecycleMiddleware(app, config=config)({"type": "http"}, None, None))
"""

UNTRACED = """
serve()
print([name for name in sys.modules if name.startswith("opentelemetry")])
"""

TRACED = """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

spans = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(spans))
trace.set_tracer_provider(provider)
serve()
print([span.name for span in spans.get_finished_spans()])
"""


@pytest.mark.parametrize(
    ("code", "said"),
    [(UNTRACED, "[]"), (TRACED, "['query Kind']")],
    ids=["nobody, and nothing is imported", "the global one"],
)
def test_the_provider_of_the_process_is_found(code: str, said: str, tmp_path: Path):
    command = [sys.executable, "-c", ALONE + code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == said
