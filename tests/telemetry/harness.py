"""One conversation at a time against a scripted server, and the spans that came of it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests.support import scope
from ws_lifecycle_metrics import Config, LifecycleMiddleware
from ws_lifecycle_metrics.store.snapshot import Histogram, Source

if TYPE_CHECKING:
    from pathlib import Path

    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.sampling import Sampler

LIMIT = 30.0
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{SPAN}-01"

CONNECT = {"type": "websocket.connect"}
ACCEPT = {"type": "websocket.accept"}
DISCONNECT = {"type": "websocket.disconnect", "code": 1000}


def text(value: str = "hello") -> dict[str, Any]:
    return {"type": "websocket.receive", "text": value}


def say(value: str = "hello") -> dict[str, Any]:
    return {"type": "websocket.send", "text": value}


async def echo(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send(ACCEPT)
    while (message := await receive())["type"] == "websocket.receive":
        await send(say(message["text"]))


class Tracing:
    """A tracer provider of this test's own, and what it exported."""

    def __init__(self, path: Path, *, sampler: Sampler | None = None, **options: Any) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        options.setdefault("tracer_provider", self.provider)
        options.setdefault("route", lambda scope: scope.get("path"))
        self.config = Config(directory=str(path), service="spans", **options)

    @property
    def spans(self) -> list[ReadableSpan]:
        return list(self.exporter.get_finished_spans())

    @property
    def names(self) -> list[str]:
        return [span.name for span in self.spans]

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.spans if span.name == name]

    def one(self, name: str) -> ReadableSpan:
        (span,) = self.named(name)
        return span

    def run(self, app: Any, *events: Any, send: Any = None, **scope: Any) -> list[Any]:
        """Run one conversation; return what the server was sent."""
        return asyncio.run(asyncio.wait_for(self.converse(app, *events, send=send, **scope), LIMIT))

    async def converse(self, app: Any, *events: Any, send: Any = None, **scope: Any) -> list[Any]:
        queue, sent = list(events), []

        async def receive() -> Any:
            if not queue:
                await asyncio.Event().wait()
            event = queue.pop(0)
            if isinstance(event, BaseException):
                raise event
            return event

        async def take(message: Any) -> None:
            if send is not None:
                await send(message)
            sent.append(message)

        await LifecycleMiddleware(app, config=self.config)(websocket(**scope), receive, take)
        return sent

    def total(self, name: str) -> float:
        """Return the sum of all series of a metric; of a histogram how many it holds."""
        (family,) = [f for f in Source(self.config).take().families() if f.metric.name == name]
        values = family.series.values()
        return sum(sum(v.counts) if isinstance(v, Histogram) else v for v in values)

    @property
    def dropped(self) -> float:
        return self.total("ws_lifecycle_metrics.spans_dropped")


def websocket(**fields: Any) -> dict[str, Any]:
    own = {
        "path": "/chat",
        "raw_path": b"/chat",
        "query_string": b"token=secret",
        "headers": [],
        "client": ("192.0.2.7", 40000),
        "extensions": {"websocket.http.response": {}},
    }
    return scope(**own | fields)
