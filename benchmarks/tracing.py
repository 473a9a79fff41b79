"""What tracing costs a message, beside the same middleware without OpenTelemetry.

One echo of a short text is two messages; a connection has 1,000 of them, its handshake and its
end included. Thread CPU time of this process; the cases are run in turn, round after round, so
that noise of the machine meets all alike. `added` is the median of the differences, within a
round, to the middleware without OpenTelemetry. Spans go to a BatchSpanProcessor and are then
thrown away, as exporting is the business of another thread.

    python benchmarks/tracing.py [--rounds 30] [--messages 1000] [--json]

opentelemetry-instrumentation-asgi is in the same table if it is installed; it is beside a
wrapper that does nothing, as it counts nothing else.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Sampler

from ws_lifecycle_metrics import Config, LifecycleMiddleware

App = Callable[[Any, Any, Any], Any]

SCOPE = {
    "type": "websocket",
    "asgi": {"version": "3.0", "spec_version": "2.4"},
    "http_version": "1.1",
    "scheme": "ws",
    "path": "/chat",
    "query_string": b"",
    "headers": [(b"host", b"localhost"), (b"upgrade", b"websocket")],
    "client": ("127.0.0.1", 40000),
    "server": ("127.0.0.1", 8000),
    "subprotocols": [],
}
NOOP, WITHOUT, NONE = "no-op wrapper", "middleware without OpenTelemetry", "no provider"
UNSAMPLED, SAMPLED = "unsampled", "sampled, default budget"
ASGI_OFF, ASGI_ON = "otel-asgi unsampled", "otel-asgi sampled"


class Discard(SpanExporter):
    """Takes spans and keeps none."""

    def export(self, spans: Any) -> SpanExportResult:
        return SpanExportResult.SUCCESS


def provider(sampler: Sampler) -> TracerProvider:
    made = TracerProvider(sampler=sampler, shutdown_on_exit=False)
    made.add_span_processor(BatchSpanProcessor(Discard(), max_queue_size=65536))
    return made


async def echo(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    while (event := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": event["text"]})


def noop(app: App) -> App:
    async def wrapped(scope: Any, receive: Any, send: Any) -> None:
        async def receiving() -> Any:
            return await receive()

        async def sending(message: Any) -> Any:
            return await send(message)

        await app(scope, receiving, sending)

    return wrapped


@contextmanager
def hidden(name: str) -> Iterator[None]:
    """Make a module look as if it had not been imported."""
    module = sys.modules.pop(name)
    try:
        yield
    finally:
        sys.modules[name] = module


def conversation(app: App, messages: int) -> Any:
    """Return a conversation that runs to its end without waiting."""
    events = iter(
        [
            {"type": "websocket.connect"},
            *({"type": "websocket.receive", "text": "hello"} for _ in range(messages // 2)),
            {"type": "websocket.disconnect", "code": 1000},
        ]
    )

    async def receive() -> Any:
        return next(events)

    async def send(_message: Any) -> None:
        pass

    return app(dict(SCOPE), receive, send)


def converse(app: App, messages: int, connections: int = 5) -> float:
    """Return ns a message of some conversations, one after the other, without the collector."""
    waiting = [conversation(app, messages) for _ in range(connections)]
    gc.collect()
    gc.disable()
    try:
        began = time.thread_time_ns()
        for one in waiting:
            with suppress(StopIteration):
                one.send(None)
        return (time.thread_time_ns() - began) / (messages * connections)
    finally:
        gc.enable()


def cases(directory: str) -> dict[str, App]:
    def ours(name: str, **options: Any) -> App:
        config = Config(directory=directory, service=name, **options)
        return LifecycleMiddleware(echo, config=config)

    made = {
        NOOP: noop(echo),
        WITHOUT: ours("without"),
        NONE: ours("none"),
        UNSAMPLED: ours("unsampled", tracer_provider=provider(ALWAYS_OFF)),
        SAMPLED: ours("sampled", tracer_provider=provider(ALWAYS_ON)),
    }
    with suppress(ImportError):
        from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware

        for name, sampler in ((ASGI_OFF, ALWAYS_OFF), (ASGI_ON, ALWAYS_ON)):
            made[name] = OpenTelemetryMiddleware(echo, tracer_provider=provider(sampler))
    return made


def measure(rounds: int, messages: int) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as directory:
        apps = cases(directory)
        for number in range(rounds + 3):  # the first ones warm up
            for name, app in apps.items():
                if name == WITHOUT:
                    with hidden("opentelemetry.trace"):
                        cost = converse(app, messages)
                else:
                    cost = converse(app, messages)
                if number >= 3:
                    found.setdefault(name, []).append(cost)
    return found


def summary(found: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    rows = {}
    for name, costs in found.items():
        base = found[NOOP] if name in (WITHOUT, ASGI_OFF, ASGI_ON) else found[WITHOUT]
        differences = [a - b for a, b in zip(costs, base, strict=True)]
        rows[name] = {
            "median": statistics.median(costs),
            "least": min(costs),
            "added": statistics.median(differences),
            "added of least": min(costs) - min(base),
        }
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--messages", type=int, default=1000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = summary(measure(options.rounds, options.messages))
    if options.json:
        print(json.dumps(rows, indent=2))
        return
    print(f"ns a message, {options.messages} messages a connection, {options.rounds} rounds\n")
    print(f"{'':34}{'median':>9}{'least':>9}{'added':>9}{'of least':>10}  beside")
    for name, row in rows.items():
        beside = NOOP if name in (WITHOUT, ASGI_OFF, ASGI_ON) else "without OpenTelemetry"
        figures = f"{row['median']:9.0f}{row['least']:9.0f}"
        if name != NOOP:
            figures += f"{row['added']:+9.0f}{row['added of least']:+10.0f}  {beside}"
        print(f"{name:34}{figures}")


if __name__ == "__main__":
    main()
