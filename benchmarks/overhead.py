"""What the middleware costs beside the bare application and beside a wrapper that does nothing.

Each figure is thread CPU time of this process, measured in interleaved rounds of one run: noise
of the machine meets all three alike. The wrapper that does nothing is two async closures, the
least that any observer of receive() and send() adds; what counts is the difference to it:
`added` is the median over the rounds, `of minima` is that of the quietest rounds.

    python benchmarks/overhead.py [--rounds 15] [--json]
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import platform
import re
import statistics
import sysconfig
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ws_lifecycle_metrics import Config, LifecycleMiddleware

App = Callable[[Any, Any, Any], Coroutine[Any, Any, Any]]
Samples = dict[str, dict[str, list[float]]]

SCOPE = {
    "type": "websocket",
    "asgi": {"version": "3.0", "spec_version": "2.4"},
    "scheme": "ws",
    "path": "/chat",
    "query_string": b"",
    "headers": [(b"host", b"localhost"), (b"upgrade", b"websocket"), (b"origin", b"http://local")],
    "subprotocols": [],
    "extensions": {"websocket.http.response": {}},
}
BARE, NOOP, OURS = "bare", "no-op wrapper", "middleware"
FIGURES = {"message": "ns", "connection": "ns", "idle connection": "bytes"}


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Accept, send back what comes, and end when the client leaves."""
    await receive()
    await send({"type": "websocket.accept"})
    while True:
        event = await receive()
        if event["type"] == "websocket.disconnect":
            return
        await send({"type": "websocket.send", "text": event["text"]})


def noop(app: App) -> App:
    """Wrap an application in two async closures."""

    async def wrapped(scope: Any, receive: Any, send: Any) -> None:
        async def receiving() -> Any:
            return await receive()

        async def sending(message: Any) -> Any:
            return await send(message)

        await app(scope, receiving, sending)

    return wrapped


class Server:
    """Delivers a connect, then texts, then a disconnect or nothing; takes all that is sent."""

    def __init__(self, text: str, messages: int, *, leaves: bool = True) -> None:
        self.text, self.left, self.leaves = text, messages, leaves
        self.connected = False

    async def receive(self) -> Any:
        if self.left and self.connected:
            self.left -= 1
            return {"type": "websocket.receive", "text": self.text}
        if not self.connected:
            self.connected = True
            return {"type": "websocket.connect"}
        if not self.leaves:
            await asyncio.sleep(0)  # gives way, and nobody lets it go on
        return {"type": "websocket.disconnect", "code": 1000}

    async def send(self, message: Any) -> None:
        return None


def converse(app: App, servers: list[Server]) -> None:
    """Run conversations to their ends; nothing waits, so no loop is measured."""
    for server in servers:
        try:
            app(dict(SCOPE), server.receive, server.send).send(None)
        except StopIteration:
            continue
        raise AssertionError("the conversation did not end")


def cost(app: App, servers: list[Server]) -> int:
    """Return the CPU time of this thread that conversations take, in ns, without the collector."""
    gc.collect()
    gc.disable()
    try:
        began = time.thread_time_ns()
        converse(app, servers)
        return time.thread_time_ns() - began
    finally:
        gc.enable()


def message_cost(app: App, count: int, text: str) -> float:
    """Return ns a message of one long conversation; an echo is two messages."""
    return cost(app, [Server(text, count // 2)]) / (count // 2 * 2)


def connection_cost(app: App, count: int, text: str) -> float:
    """Return ns of a conversation without a message: open and close."""
    return cost(app, [Server(text, 0) for _ in range(count)]) / count


async def idle_memory(app: App, count: int, segments: Path) -> float:
    """Return bytes that one of many connections holds that are accepted and wait.

    tracemalloc sees Python's objects; a segment's pages are mapped, so they are added.
    """

    def held() -> int:
        gc.collect()
        mapped = sum(path.stat().st_size for path in segments.rglob("*.segment"))
        return tracemalloc.get_traced_memory()[0] + mapped

    tracemalloc.start()
    before, running = held(), []
    for server in [Server("", 0, leaves=False) for _ in range(count)]:
        running.append(app(dict(SCOPE), server.receive, server.send))
        running[-1].send(None)
        if len(running) % 500 == 0:
            await asyncio.sleep(0)  # the watchdog would say that the loop hangs, and be right
    after = held()
    tracemalloc.stop()
    for coroutine in running:
        coroutine.close()
        await asyncio.sleep(0)
    return (after - before) / count


async def measure(options: argparse.Namespace, directory: str) -> Samples:
    """Return all samples: figure to application to one value a round.

    A loop is at hand, as in a worker, and has nothing to do but to beat between the rounds.
    """
    samples: Samples = {figure: {name: [] for name in (BARE, NOOP, OURS)} for figure in FIGURES}
    text = "x" * options.size
    config = Config(service="overhead", directory=directory)
    apps: dict[str, App] = {BARE: echo, NOOP: noop(echo)}
    apps[OURS] = LifecycleMiddleware(echo, config=config)
    for number in range(-1, options.rounds):  # the first round warms up
        for name in list(apps)[number % 3 :] + list(apps)[: number % 3]:
            message = message_cost(apps[name], options.messages, text)
            await asyncio.sleep(0)
            connection = connection_cost(apps[name], options.connections, text)
            await asyncio.sleep(0)
            if number >= 0:
                samples["message"][name].append(message)
                samples["connection"][name].append(connection)
    # A segment keeps its records for later, so the memory is taken once, from a fresh one.
    fresh = Config(service="memory", directory=directory)
    apps[OURS] = LifecycleMiddleware(echo, config=fresh)
    for name, app in apps.items():
        converse(app, [Server(text, 0)])
        held = await idle_memory(app, options.open, Path(directory))
        samples["idle connection"][name].append(held)
        await asyncio.sleep(0)
    return samples


def row(values: list[float], noop: list[float]) -> dict[str, float]:
    """Return median, minimum and spread, and what is added to the no-op wrapper."""
    pairs = list(zip(values, noop, strict=True))
    return {
        "median": statistics.median(values),
        "min": min(values),
        "spread": max(values) - min(values),
        "added": statistics.median(value - other for value, other in pairs),
        "added_min": min(values) - min(noop),
        "ratio": statistics.median(value / other for value, other in pairs),
    }


def machine() -> dict[str, str]:
    """Say where and when this was measured."""
    options = sysconfig.get_config_var("CONFIG_ARGS") or ""
    with_ = "with" if "--enable-optimizations" in options else "without"
    info = Path("/proc/cpuinfo")
    names = re.findall("model name.*: (.*)", info.read_text() if info.exists() else "")
    return {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "build": f"configured {with_} --enable-optimizations (PGO)",
        "machine": f"{platform.system()} {(*names, platform.processor())[0]}",
        "date": datetime.now(UTC).date().isoformat(),
    }


def report(found: dict[str, dict[str, Any]], options: argparse.Namespace) -> str:
    """Return the figures as a table."""
    lines = [
        ", ".join(machine().values()),
        f"{options.rounds} rounds of {options.messages} messages of {options.size} bytes and "
        f"{options.connections} connections; memory over {options.open} connections",
    ]
    heads = ("median", "min", "spread", "added", "of minima", "ratio")
    for figure, rows in found.items():
        title = f"{figure}, {FIGURES[figure]}"
        lines += ["", f"{title:<24}" + "".join(f"{head:>11}" for head in heads)]
        for name, numbers_ in rows.items():
            *numbers, ratio = numbers_.values()
            cells = "".join(f"{number:>11,.0f}" for number in numbers)
            lines.append(f"{name:<24}{cells}{ratio:>11.2f}")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=9, help="interleaved repetitions")
    parser.add_argument("--messages", type=int, default=100_000, help="messages a round")
    parser.add_argument("--connections", type=int, default=5_000, help="connections a round")
    parser.add_argument("--open", type=int, default=5_000, help="idle connections for the memory")
    parser.add_argument("--size", type=int, default=64, help="bytes of text in a message")
    parser.add_argument("--json", action="store_true", help="print all samples as JSON")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as directory:
        samples = asyncio.run(measure(options, directory))
    found = {
        figure: {name: row(values, by_name[NOOP]) for name, values in by_name.items()}
        for figure, by_name in samples.items()
    }
    where = {"machine": machine(), "options": vars(options), "figures": found, "samples": samples}
    print(json.dumps(where, indent=2) if options.json else report(found, options))


if __name__ == "__main__":
    main()
