"""What a subscription's result costs: without the extension, with it, and with others.

    python benchmarks/subscriptions.py

Each run is one connection in this process (strawberry.asgi, graphql-transport-ws) and one
subscription of 1,000 results; runs of all variants alternate, and medians are compared.
"""

from __future__ import annotations

import asyncio
import gc
import json
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Callable  # Strawberry reads the annotations
from contextlib import suppress
from typing import Any

import strawberry
from strawberry.asgi import GraphQL
from strawberry.extensions import SchemaExtension

from ws_lifecycle_metrics import Config, LifecycleMiddleware
from ws_lifecycle_metrics.integrations.strawberry import LifecycleExtension

RESULTS = 1000
ROUNDS = 25
BAR = 1.25

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


def opentelemetry() -> Any:
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from strawberry.extensions.tracing import OpenTelemetryExtension

    trace.set_tracer_provider(TracerProvider())
    return app(OpenTelemetryExtension)


async def subscribe(served: Any) -> float:
    """Run one subscription to its end; return the seconds that it took."""
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
    began = time.process_time()  # of this process alone: other load must not count
    say(SUBSCRIBE)
    await completed.wait()
    took = time.process_time() - began
    events.put_nowait({"type": "websocket.disconnect", "code": 1000})
    with suppress(asyncio.CancelledError):
        await task
    return took


def measure(variants: dict[str, Any], rounds: int = ROUNDS) -> dict[str, float]:
    """Return the median microseconds a result of each variant."""
    times: dict[str, list[float]] = {name: [] for name in variants}
    gc.collect()
    for turn in range(rounds + 2):
        for name, served in variants.items():
            took = asyncio.run(subscribe(served))
            if turn >= 2:  # the first ones import and compile
                times[name].append(took)
    return {name: statistics.median(t) / RESULTS * 1e6 for name, t in times.items()}


def variants(directory: str) -> dict[str, Any]:
    config = Config(service="benchmark", directory=directory)
    watched: Callable[[Any], Any] = lambda inner: LifecycleMiddleware(inner, config=config)  # noqa: E731  # short beside its uses
    return {
        "nothing": app(),
        "middleware": watched(app()),
        "middleware + extension": watched(app(LifecycleExtension)),
        "empty on_stream_result": app(OnStreamResult),
        "OpenTelemetryExtension": opentelemetry(),
    }


def main() -> int:
    with tempfile.TemporaryDirectory() as directory:
        medians = measure(variants(directory))
    for name, median in medians.items():
        print(f"{name:24} {median:7.1f} µs a result  {median / medians['nothing']:5.2f}x")
    ratio = medians["middleware + extension"] / medians["middleware"]
    print(f"the extension alone: {ratio:.2f}x, at most {BAR}x")
    return int(ratio > BAR)


if __name__ == "__main__":
    sys.exit(main())
