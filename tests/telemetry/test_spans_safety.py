"""Whatever a tracer, a clock or a fork does, the application is unharmed and losses are counted."""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import os
import subprocess
import sys
import textwrap
import time
import tracemalloc
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    SimpleSpanProcessor,
    SpanExporter,
    SpanExportResult,
)
from opentelemetry.sdk.trace.sampling import Sampler

from tests.telemetry.harness import ACCEPT, CONNECT, DISCONNECT, Tracing, echo, say, text, websocket
from ws_lifecycle_metrics import Config, ConfigError, LifecycleMiddleware
from ws_lifecycle_metrics.telemetry import spans as module
from ws_lifecycle_metrics.telemetry import tracer
from ws_lifecycle_metrics.telemetry.providers import Remembered


class Broken:
    """A provider whose tracer raises at every call."""

    def get_tracer(self, *_: object, **__: object) -> Broken:
        return self

    def start_span(self, *_: object, **__: object) -> None:
        raise RuntimeError("broken tracer")


class Refusing:
    """A provider that gives no tracer, as one whose configuration is wrong."""

    def get_tracer(self, *_: object, **__: object) -> None:
        raise RuntimeError("no tracer")


@dataclass
class Hashless(trace.TracerProvider):
    """A provider that wraps another one and is compared by value, so that it has no hash."""

    inner: TracerProvider

    def get_tracer(self, *arguments: Any, **options: Any) -> trace.Tracer:
        return self.inner.get_tracer(*arguments, **options)


class Slotted:
    """A provider that wraps another one and takes no weak reference, for it has slots alone."""

    __slots__ = ("get_tracer",)

    def __init__(self, inner: TracerProvider) -> None:
        self.get_tracer = inner.get_tracer


class BrokenSpans:
    """A provider whose spans begin and end, and take nothing that is known later."""

    def get_tracer(self, *_: object, **__: object) -> BrokenSpans:
        return self

    def start_span(self, *_: object, **__: object) -> trace.Span:
        return BrokenSpan()


class BrokenSpan(trace.NonRecordingSpan):
    def __init__(self) -> None:
        super().__init__(trace.SpanContext(1, 1, is_remote=False, trace_flags=trace.TraceFlags(1)))

    def is_recording(self) -> bool:
        return True

    def set_attributes(self, *_: object) -> None:
        raise RuntimeError("broken span")


class BrokenEnd(SpanProcessor):
    def on_end(self, span: object) -> None:
        raise RuntimeError("broken processor")


class BrokenSampler(Sampler):
    def should_sample(self, *_: object, **__: object) -> None:
        raise RuntimeError("broken sampler")

    def get_description(self) -> str:
        return "broken"


class BrokenExporter(SpanExporter):
    def export(self, spans: object) -> SpanExportResult:
        raise RuntimeError("broken exporter")

    def shutdown(self) -> None:
        pass


def provider(*processors: SpanProcessor, **options: object) -> TracerProvider:
    made = TracerProvider(shutdown_on_exit=False, **options)
    for processor in processors:
        made.add_span_processor(processor)
    return made


SAID = ["websocket.accept", "websocket.send", "websocket.send"]


@pytest.mark.parametrize(
    ("broken", "lost"),
    [
        (lambda: Broken(), 1),
        (lambda: Refusing(), 1),
        (lambda: BrokenSpans(), 1),
        (lambda: provider(BrokenEnd()), 7),
        (lambda: provider(sampler=BrokenSampler()), 1),
        (lambda: provider(SimpleSpanProcessor(BrokenExporter())), 0),
    ],
    ids=["tracer", "no tracer", "span", "processor", "sampler", "exporter"],
)
def test_a_tracer_that_raises_costs_its_spans_and_nothing_else(tmp_path, broken, lost):
    tracing = Tracing(tmp_path, tracer_provider=broken())
    sent = tracing.run(echo, CONNECT, text(), text(), DISCONNECT)
    assert [message["type"] for message in sent] == SAID
    assert tracing.dropped == lost
    assert tracing.total("ws_lifecycle_metrics.internal_errors") == 0
    assert tracing.total("websocket.server.received_messages") == 2


def test_an_exception_of_the_application_is_its_own_under_a_broken_tracer(tmp_path):
    async def app(scope, receive, send):
        raise KeyError("mine")

    tracing = Tracing(tmp_path, tracer_provider=provider(BrokenEnd()))
    with pytest.raises(KeyError, match="mine"):
        tracing.run(app, CONNECT)


@pytest.mark.parametrize("wrapped", [Hashless, Slotted], ids=["no hash", "no weak reference"])
def test_a_provider_that_no_dictionary_takes_makes_spans(tmp_path, wrapped):
    tracing = Tracing(tmp_path)
    tracing.config = replace(tracing.config, tracer_provider=wrapped(tracing.provider))
    for _ in range(2):
        tracing.run(echo, CONNECT, text(), DISCONNECT)
    assert len(tracing.named("GET /chat")) == 2
    assert tracing.dropped == tracing.total("ws_lifecycle_metrics.internal_errors") == 0


def test_a_provider_that_is_gone_is_forgotten():
    remembered = Remembered(id)
    kept, gone = provider(), provider()
    assert [remembered.of(one) for one in (kept, gone, kept)] == [id(kept), id(gone), id(kept)]
    del gone
    gc.collect()
    assert len(remembered) == 1


def test_no_provider_makes_no_spans(tmp_path):
    tracing = Tracing(tmp_path, tracer_provider=None)
    assert isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)
    assert module.begin(tracing.config, {"headers": []}, 0, list) == (None, None)
    tracing.run(echo, CONNECT, text(), DISCONNECT)
    assert tracing.spans == []
    assert tracing.dropped == 0


@pytest.mark.parametrize("given", [5, "provider", object()])
def test_what_is_no_provider_is_refused(given):
    with pytest.raises(ConfigError, match="tracer_provider"):
        Config(tracer_provider=given)


@pytest.mark.parametrize("given", [-1, 1_000_001, 1.5, "8", True])
def test_what_is_no_budget_is_refused(given):
    with pytest.raises(ConfigError, match="span_budget"):
        Config(span_budget=given)


@pytest.mark.parametrize(
    ("given", "budget"), [("none", None), ("None", None), ("0", 0), ("20", 20)]
)
def test_the_budget_can_be_set_from_outside(monkeypatch, given, budget):
    monkeypatch.setenv("WS_LIFECYCLE_SPAN_BUDGET", given)
    assert Config().span_budget == budget


@pytest.mark.parametrize(("given", "means"), [("1", True), ("no", False), ("TRUE", True)])
def test_the_client_address_can_be_asked_for_from_outside(monkeypatch, given, means):
    monkeypatch.setenv("WS_LIFECYCLE_SPAN_CLIENT_ADDRESS", given)
    assert Config().span_client_address is means


def test_a_second_provider_gets_what_comes_after_it(tmp_path):
    first, second = Tracing(tmp_path / "1"), Tracing(tmp_path / "2")
    first.run(echo, CONNECT, DISCONNECT)
    second.run(echo, CONNECT, DISCONNECT)
    first.run(echo, CONNECT, DISCONNECT)
    assert (len(first.named("GET /chat")), len(second.named("GET /chat"))) == (2, 1)


@pytest.mark.parametrize("jump", [-86_400, 86_400], ids=["back", "forth"])
def test_a_jump_of_the_clock_makes_no_negative_duration(tmp_path, monkeypatch, jump):
    tracing = Tracing(tmp_path)
    real = time.time_ns

    async def app(scope, receive, send):
        await receive()
        await send(ACCEPT)
        monkeypatch.setattr(time, "time_ns", lambda: real() + jump * 1_000_000_000)
        await receive()
        await send(say())
        await receive()

    tracing.run(app, CONNECT, text(), DISCONNECT)
    assert len(tracing.spans) == 5
    for span in tracing.spans:
        assert 0 <= span.end_time - span.start_time < 30e9


def test_a_task_left_behind_may_go_on_after_the_end(tmp_path):
    tracing = Tracing(tmp_path)
    left: list[object] = []

    async def app(scope, receive, send):
        await receive()
        await send(ACCEPT)
        left.extend((receive, send))

    async def main():
        await tracing.converse(app, CONNECT, text(), text(), DISCONNECT)
        receive, send = left
        await receive()
        await send(say())
        await receive()

    asyncio.run(asyncio.wait_for(main(), 30))
    assert tracing.total("ws_lifecycle_metrics.internal_errors") == 0


# Memory.


QUARTERS = 4


async def pump(config: Config, messages: int) -> int:
    """Echo so many messages on one connection; return the least growth of memory in a quarter.

    A leak shows in each; in one, another thread's work or a table that doubles may show.
    """
    count, marks = 0, []
    message = text("x")

    async def receive():
        nonlocal count
        count += 1
        if count == 1:
            return CONNECT
        if count % (messages // QUARTERS) == 0:
            gc.collect()
            marks.append(tracemalloc.get_traced_memory()[0])
        return DISCONNECT if count > messages else message

    async def send(_message):
        pass

    tracemalloc.start()
    try:
        await LifecycleMiddleware(echo, config=config)(websocket(), receive, send)
    finally:
        tracemalloc.stop()
    return min(after - before for before, after in pairwise(marks))


class Ended(SpanProcessor):
    """Counts spans, and keeps none."""

    def __init__(self) -> None:
        self.open = self.ended = 0

    def on_start(self, span: object, parent_context: object = None) -> None:
        self.open += 1

    def on_end(self, span: object) -> None:
        self.open -= 1
        self.ended += 1


def flat(tmp_path, messages: int, **options: object) -> Ended:
    spans = Ended()
    tracing = Tracing(tmp_path, tracer_provider=provider(spans), **options)
    grown = asyncio.run(asyncio.wait_for(pump(tracing.config, messages), 500))
    assert grown <= 10 * 1024
    assert spans.open == 0
    assert tracing.total("websocket.server.received_messages") == messages - 1
    return spans


# tracemalloc crashes the interpreter (CPython 3.11) if another thread, such as that of a collector
# of tests/otel, unpacks something meanwhile: these run in a process of their own, with the slow.
@pytest.mark.slow
def test_many_messages_hold_no_span_open_and_no_memory(tmp_path):
    assert flat(tmp_path, 12_000).ended == 3 + 2 * 2


@pytest.mark.slow
def test_many_messages_with_a_span_each_hold_no_memory(tmp_path):
    assert flat(tmp_path, 2_000, span_budget=None).ended == 2 * 1_999 + 3


@pytest.mark.slow
def test_a_million_messages_hold_no_span_open_and_no_memory(tmp_path):
    assert flat(tmp_path, 1_000_000).ended == 3 + 2 * 2


def test_a_connection_of_a_day_has_spans_of_a_day(tmp_path, monkeypatch):
    from ws_lifecycle_metrics import conversation

    tracing = Tracing(tmp_path)
    day = 86_400_000_000_000

    async def app(scope, receive, send):
        await receive()
        await send(ACCEPT)
        await receive()
        monkeypatch.setattr(conversation, "_now", lambda: time.monotonic_ns() + day)
        await receive()
        await receive()

    tracing.run(app, CONNECT, text(), text(), DISCONNECT)
    whole = tracing.one("websocket connection")
    assert day <= whole.end_time - whole.start_time < day + 30e9


# Processes.


def child(path: str, done: multiprocessing.Queue[object]) -> None:
    tracing = Tracing(path)  # type: ignore[arg-type]  # a str will do
    tracing.run(echo, CONNECT, text(), DISCONNECT)
    done.put((tracing.names, tracing.dropped))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_made_either_way_make_their_own_spans(tmp_path, method):
    Tracing(tmp_path).run(echo, CONNECT, DISCONNECT)
    context = multiprocessing.get_context(method)
    done = context.Queue()
    process = context.Process(target=child, args=(str(tmp_path), done))
    process.start()
    names, dropped = done.get(timeout=60)
    process.join(60)
    assert process.exitcode == 0
    assert (len(names), dropped) == (5, 0)


def test_a_fork_forgets_the_tracer_of_its_parent(tmp_path):
    config = Tracing(tmp_path).config
    assert tracer.tracer_of(config.tracer_provider, list) is not None
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(write, b"0" if len(tracer._tracers) else b"1")
        os._exit(0)
    os.waitpid(pid, 0)
    assert os.read(read, 1) == b"1"
    os.close(read)
    os.close(write)


def python(code: str, *arguments: object, timeout: float = 60) -> str:
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(code), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_middleware_imports_nothing_of_opentelemetry():
    python("""
        import sys
        import ws_lifecycle_metrics.middleware
        import ws_lifecycle_metrics.store.snapshot
        assert not [name for name in sys.modules if name.startswith("opentelemetry")]
    """)


WITHOUT_SDK = """
    import asyncio, sys
    from pathlib import Path

    class Block:
        def find_spec(self, name, path=None, target=None):
            if name.startswith(("opentelemetry.sdk", "opentelemetry.exporter")):
                raise ImportError(f"{name} is blocked", name=name)

    sys.meta_path.insert(0, Block())
"""


WITHOUT_REQUESTS = """
    import sys
    sys.modules["requests"] = None
"""


def test_without_the_sdk_everything_works_and_makes_no_span(tmp_path):
    out = python(
        WITHOUT_SDK
        + """
    import opentelemetry.trace
    from ws_lifecycle_metrics import Config, LifecycleMiddleware
    from ws_lifecycle_metrics.store.snapshot import Source

    events = [{"type": "websocket.connect"}, {"type": "websocket.disconnect", "code": 1000}]

    async def receive():
        return events.pop(0)

    async def send(message):
        print(message["type"])

    async def app(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        await receive()

    config = Config(directory=sys.argv[1])
    scope = {"type": "websocket", "asgi": {"version": "3.0"}, "path": "/", "headers": []}
    asyncio.run(LifecycleMiddleware(app, config=config)(scope, receive, send))
    families = {f.metric.name: f for f in Source(config).take().families()}
    print(sum(families["websocket.server.closes"].series.values()))
    print(sum(families["ws_lifecycle_metrics.internal_errors"].series.values()))
    """,
        tmp_path,
    )
    assert out.split() == ["websocket.accept", "1", "0"]


@pytest.mark.parametrize("absent", [WITHOUT_SDK, WITHOUT_REQUESTS], ids=["all", "its requests"])
def test_serve_without_the_exporter_says_what_to_install(absent, tmp_path):
    out = python(
        absent
        + """
    from click.testing import CliRunner
    from ws_lifecycle_metrics.cli import cli

    result = CliRunner().invoke(cli, ["serve", "--otlp", "--directory", sys.argv[1]])
    print(result.exit_code, result.output)
    """,
        tmp_path,
    )
    exporter = "opentelemetry-exporter-otlp-proto-http"
    assert out == f"2 Error: --otlp: {exporter} not installed; pip install {exporter}\n\n"


class Stuck(SpanExporter):
    """A collector that never answers."""

    def export(self, spans: object) -> SpanExportResult:
        time.sleep(30)
        return SpanExportResult.FAILURE


def test_a_stuck_exporter_does_not_delay_the_application(tmp_path):
    batch = BatchSpanProcessor(Stuck(), schedule_delay_millis=1, max_export_batch_size=1)
    tracing = Tracing(tmp_path, tracer_provider=provider(batch))
    started = time.monotonic()
    for _ in range(20):
        tracing.run(echo, CONNECT, *[text()] * 10, DISCONNECT)
    assert time.monotonic() - started < 10
    assert tracing.total("websocket.server.closes") == 20
