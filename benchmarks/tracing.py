"""What tracing costs a message, beside the same middleware without OpenTelemetry.

A connection has 1,000 messages, its handshake and its end included. Spans go to a
BatchSpanProcessor and are then thrown away, as exporting is the business of another thread.
"""

from __future__ import annotations

import asyncio
import functools
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ws_lifecycle_metrics import Config, LifecycleMiddleware

from .echo import App, Server, converse, echo, noop
from .measure import NOOP, OURS, Figure, Samples, added, cpu_ns, figure, interleave, ratio, versions
from .overhead import TEXT
from .part import Bar, Data, Panel, Run, Table, shown
from .peers import opentelemetry_asgi, provider
from .processes import alternate, answer, child

NAME = "tracing"
TITLE = "OpenTelemetry"
ABOUT = """\
In one process, as above; connections of 1,000 messages, with their handshakes and ends. Spans are
batched and thrown away. `default budget`: the first two messages each way have spans of their
own."""

MESSAGES = 1000
CONNECTIONS = 10
COST = "message"
WITHOUT, NONE = f"{OURS}, no OpenTelemetry", f"{OURS}, no provider"
UNSAMPLED, SAMPLED = f"{OURS}, unsampled", f"{OURS}, sampled, default budget"
ASGI_OFF, ASGI_ON = "OpenTelemetry ASGI, unsampled", "OpenTelemetry ASGI, sampled"


@contextmanager
def hidden(name: str) -> Iterator[None]:
    """Make a module look as if it had not been imported."""
    module = sys.modules.pop(name)
    try:
        yield
    finally:
        sys.modules[name] = module


def message_cost(app: App, *, without: bool) -> float:
    """Return ns a message of some conversations."""
    servers = [Server(TEXT, MESSAGES // 2) for _ in range(CONNECTIONS)]
    if not without:
        return cpu_ns(lambda: converse(app, servers)) / (MESSAGES * CONNECTIONS)
    with hidden("opentelemetry.trace"):
        return cpu_ns(lambda: converse(app, servers)) / (MESSAGES * CONNECTIONS)


def apps(directory: str) -> dict[str, App]:
    """Return what is compared, by name."""

    def ours(service: str, **options: Any) -> App:
        config = Config(directory=directory, service=service, **options)
        return LifecycleMiddleware(echo, config=config)

    return {
        NOOP: noop(echo),
        WITHOUT: ours("without"),
        NONE: ours("none"),
        UNSAMPLED: ours("unsampled", tracer_provider=provider(sampled=False)),
        SAMPLED: ours("sampled", tracer_provider=provider(sampled=True)),
        ASGI_OFF: opentelemetry_asgi(echo, sampled=False),
        ASGI_ON: opentelemetry_asgi(echo, sampled=True),
    }


def work(options: dict[str, Any]) -> dict[str, Samples]:
    """Measure in this process."""
    with tempfile.TemporaryDirectory() as directory:
        cases = {
            name: functools.partial(message_cost, app, without=name == WITHOUT)
            for name, app in apps(directory).items()
        }
        return {COST: asyncio.run(interleave(cases, options["rounds"]))}


def measure(run: Run) -> Data:
    """Measure in several processes."""
    options = {"rounds": run.effort.rounds}
    found, missing = alternate([NAME], run.effort.processes, lambda _: child(__name__, options))
    return {
        "samples": found.get(NAME, {}).get(COST, {}),
        "missing": missing,
        "versions": versions(["opentelemetry-sdk", "opentelemetry-instrumentation-asgi"]),
    }


def _beside(data: Data, name: str) -> Figure:
    return ratio(data["samples"][name], data["samples"][NOOP])


def tables(data: Data) -> list[Table]:
    """Return a row for each case."""
    rows = []
    for name, values in data["samples"].items():
        cells = [shown(figure(values).scaled(1e-3), 3), shown(_beside(data, name))]
        own = name in (NONE, UNSAMPLED, SAMPLED)
        more = added(values, data["samples"][WITHOUT]).scaled(1e-3) if own else None
        rows.append([name, *cells, shown(more, 3) if more else ""])
    head = ["", "a message, µs", "× no-op", "added to no OpenTelemetry, µs"]
    return [Table("CPU a message", head, rows)]


def bars(data: Data) -> list[Bar]:
    """Return nothing: there is no demand."""
    return []


def panels(data: Data) -> list[Panel]:
    """Return one chart."""
    values = {name: _beside(data, name) for name in data["samples"] if name != NOOP}
    title = "CPU a message, with and without tracing"
    return [Panel(name="message", title=title, unit="× no-op wrapper", values=values, log=True)]


if __name__ == "__main__":
    answer(work)
