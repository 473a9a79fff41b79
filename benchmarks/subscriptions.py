"""What a subscription's result costs: without the extension, with it, and with others.

Each run is one connection in this process (strawberry.asgi, graphql-transport-ws) and one
subscription of 1,000 results; runs of all variants alternate.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import json
import tempfile
import time
from collections.abc import AsyncGenerator, Mapping  # Strawberry reads the annotations
from contextlib import suppress
from typing import Any

import strawberry
from strawberry.asgi import GraphQL
from strawberry.extensions import SchemaExtension

from ws_lifecycle_metrics import Config, LifecycleMiddleware
from ws_lifecycle_metrics.integrations.strawberry import LifecycleExtension

from .echo import noop
from .measure import NOOP, OURS, Figure, Samples, figure, interleave, ratio, versions
from .part import Bar, Data, Panel, Run, Table, shown
from .peers import provider
from .processes import alternate, answer, child

NAME = "subscriptions"
TITLE = "GraphQL"
ABOUT = """\
One subscription of 1,000 results over graphql-transport-ws through `strawberry.asgi`, in one
process, the garbage collector as it is; the process's CPU time. An extension with nothing but an
empty `on_stream_result` shows what Strawberry itself spends on any."""

RESULTS = 1000
BAR = 1.25
RESULT = "result"
NOTHING, WRAPPED, EMPTY = "nothing", NOOP, "empty on_stream_result"
MIDDLEWARE, EXTENSION = f"{OURS}, middleware", f"{OURS}, middleware and extension"
OTEL_OFF = "Strawberry's OpenTelemetryExtension, unsampled"
OTEL_ON = "Strawberry's OpenTelemetryExtension, sampled"

SUBSCRIBE = {"id": "1", "type": "subscribe", "payload": {"query": "subscription Count { count }"}}


@strawberry.type
class Query:
    hello: str = "hi"


@strawberry.type
class Subscription:
    @strawberry.subscription
    async def count(self) -> AsyncGenerator[int, None]:
        for i in range(RESULTS):
            yield i


class OnStreamResult(SchemaExtension):
    """The least that an extension can do in `on_stream_result`."""

    def on_stream_result(self, result: Any) -> Any:
        yield


def app(*extensions: Any) -> Any:
    return GraphQL(strawberry.Schema(Query, subscription=Subscription, extensions=extensions))


def opentelemetry(*, sampled: bool) -> Any:
    from strawberry.extensions.tracing import OpenTelemetryExtension

    given = provider(sampled=sampled)  # not the global one, which would make others trace, too
    return app(lambda: OpenTelemetryExtension(tracer_provider=given))


async def subscribe(served: Any) -> float:
    """Run one subscription to its end; return the ns of CPU time that a result took."""
    events: asyncio.Queue[Any] = asyncio.Queue()
    acknowledged, completed = asyncio.Event(), asyncio.Event()

    async def send(message: Any) -> None:
        text = message.get("text", "")
        if '"connection_ack"' in text:
            acknowledged.set()
        elif '"complete"' in text:
            completed.set()

    def say(message: Any) -> None:
        events.put_nowait({"type": "websocket.receive", "text": json.dumps(message)})

    scope = {
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "path": "/",
        "query_string": b"",
        "headers": [],
        "subprotocols": ["graphql-transport-ws"],
    }
    events.put_nowait({"type": "websocket.connect"})
    task = asyncio.create_task(served(scope, events.get, send))
    say({"type": "connection_init"})
    await acknowledged.wait()
    began = time.process_time_ns()  # of this process alone: other load must not count
    say(SUBSCRIBE)
    await completed.wait()
    took = (time.process_time_ns() - began) / RESULTS
    events.put_nowait({"type": "websocket.disconnect", "code": 1000})
    with suppress(asyncio.CancelledError):
        await task
    return took


def variants(directory: str) -> dict[str, Any]:
    config = Config(service="benchmark", directory=directory)

    def watched(inner: Any) -> Any:
        return LifecycleMiddleware(inner, config=config)

    return {
        NOTHING: app(),
        WRAPPED: noop(app()),
        EMPTY: app(OnStreamResult),
        MIDDLEWARE: watched(app()),
        EXTENSION: watched(app(LifecycleExtension)),
        OTEL_OFF: opentelemetry(sampled=False),
        OTEL_ON: opentelemetry(sampled=True),
    }


def samples(variants: Mapping[str, Any], rounds: int) -> Samples:
    """Return ns a result of each variant, all in turn; the first two rounds import and compile."""
    cases = {name: functools.partial(subscribe, served) for name, served in variants.items()}
    gc.collect()
    return asyncio.run(interleave(cases, rounds, warm=2))


def work(options: dict[str, Any]) -> dict[str, Samples]:
    """Measure in this process."""
    with tempfile.TemporaryDirectory() as directory:
        return {RESULT: samples(variants(directory), options["rounds"])}


def measure(run: Run) -> Data:
    """Measure in several processes."""
    rounds = 3 * run.effort.rounds
    found, missing = alternate(
        ["strawberry"],
        run.effort.processes,
        lambda _name: child(__name__, {"rounds": rounds}),
    )
    return {
        "samples": found.get("strawberry", {}).get(RESULT, {}),
        "missing": missing,
        "versions": versions(["strawberry-graphql", "graphql-core", "opentelemetry-sdk"]),
    }


def _beside(data: Data, name: str, other: str) -> Figure | None:
    found = data["samples"]
    return ratio(found[name], found[other]) if name in found else None


def tables(data: Data) -> list[Table]:
    """Return a row for each variant."""
    rows = []
    for name, values in data["samples"].items():
        cells = [shown(figure(values).scaled(1e-3), 1)]
        for other in (NOTHING, WRAPPED):
            found = _beside(data, name, other)
            cells.append(shown(found) if found else "")
        rows.append([name, *cells])
    return [Table("CPU a result", ["", "µs", f"× {NOTHING}", f"× {WRAPPED}"], rows)]


def bars(data: Data) -> list[Bar]:
    """Return what is demanded of the extension."""
    measured = _beside(data, EXTENSION, MIDDLEWARE)
    demand = "a result with the extension, of that with the middleware alone"
    return [Bar(demand=demand, limit=BAR, unit="×", measured=measured)]


def panels(data: Data) -> list[Panel]:
    """Return one chart."""
    found = {name: _beside(data, name, NOTHING) for name in data["samples"] if name != NOTHING}
    values = {name: one for name, one in found.items() if one is not None}
    title = "CPU of a subscription's result"
    return [Panel(name="result", title=title, unit=f"× {NOTHING}", values=values)]


if __name__ == "__main__":
    answer(work)
