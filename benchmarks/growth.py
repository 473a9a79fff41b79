"""What grows with use: the cost of a message, the series, the memory."""

from __future__ import annotations

import asyncio
import functools
import os
import tempfile
from pathlib import Path
from typing import Any

from ws_lifecycle_metrics import Config, LifecycleMiddleware

from .echo import App, Server, converse, echo, end, noop, open_idle
from .measure import BARE, NOOP, OURS, Figure, Samples, figure, interleave, ratio
from .overhead import SAMPLE_NS, TEXT, enough, message_cost
from .part import Bar, Data, Panel, Run, Table, shown
from .places import shared_memory
from .processes import alternate, answer, child, say
from .workers import series

NAME = "growth"
TITLE = "Growth"
ABOUT = """\
One connection exchanges messages while others wait, in one process, as under "In one process".
Series are those of a real exposition, of workers that are processes of their own. Memory is the
resident set of a process, mapped segments included, over many connections of 1,000 messages."""

OPEN = (1, 1_000, 50_000)
SAMPLES = 3
ROUTES = (1, 5, 10, 25, 50)
WORKERS = (1, 2, 4, 8)
ROUTES_OF_WORKERS = 4
MESSAGES = 10_000_000
STEPS = 10
MESSAGES_EACH = 1_000
MIB = 1 << 20


# In processes of their own.


async def costs_by_open(options: dict[str, Any]) -> dict[str, Samples]:
    """Return ns a message, by connections that are open and then by application."""
    ours: App = LifecycleMiddleware(echo, config=Config(service="growth"))
    apps = {BARE: echo, NOOP: noop(echo), OURS: ours}
    counts = {n: enough(message_cost, app, options["sample_ns"]) for n, app in apps.items()}
    cases = {n: functools.partial(message_cost, app, counts[n]) for n, app in apps.items()}
    found: dict[str, Samples] = {}
    for number in range(options["rounds"]):
        levels = options["open"] if number % 2 else options["open"][::-1]
        for level in levels:
            idle = await open_idle(ours, level - 1)
            samples = await interleave(cases, SAMPLES, warm=int(number == 0))
            await end(idle)
            for name, values in samples.items():
                found.setdefault(str(level), {}).setdefault(name, []).extend(values)
    return found


async def memory(options: dict[str, Any]) -> list[float]:
    """Return the resident set in bytes after each tenth of the messages."""
    middleware = LifecycleMiddleware(echo, config=Config(service="growth"))
    app: App = middleware if options["ours"] else noop(echo)
    connections = max(1, options["messages"] // STEPS // MESSAGES_EACH)
    found = []
    for _ in range(STEPS):
        for _ in range(connections):
            converse(app, [Server(TEXT, MESSAGES_EACH // 2)])
            await asyncio.sleep(0)
        found.append(resident())
    return found


def resident() -> float:
    """Return the resident set of this process in bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return float(pages * os.sysconf("SC_PAGE_SIZE"))


def work(options: dict[str, Any]) -> object:
    """Measure the one or the other."""
    return asyncio.run(memory(options) if "messages" in options else costs_by_open(options))


# In the process that asks.


def measure(run: Run) -> Data:
    """Measure all three."""
    effort = run.effort

    def one(_name: str) -> dict[str, Samples]:
        options = {
            "rounds": max(1, effort.rounds // 2),
            "sample_ns": SAMPLE_NS * effort.size,
            "open": [max(1, effort.count(level)) for level in OPEN],
        }
        say("  messages, with more and more connections open")
        return _alone(options)  # type: ignore[no-any-return]  # it came as JSON

    found, missing = alternate([OURS], max(1, effort.processes // 2 + 1), one)
    say("  series")
    routes = [count for count in ROUTES if count == 1 or effort.size > 0.01]
    counts = [count for count in WORKERS if count <= effort.workers]
    total = effort.count(MESSAGES, STEPS * MESSAGES_EACH)
    data = {
        "open": found.get(OURS, {}),
        "missing": missing,
        "routes": {str(number): series(number, 1) for number in routes},
        "workers": {str(number): series(ROUTES_OF_WORKERS, number) for number in counts},
        "messages": total,
    }
    say(f"  {total:,} messages")
    data["memory"] = {
        NOOP: _alone({"messages": total, "ours": False}),
        OURS: _alone({"messages": total, "ours": True}),
    }
    return data


def _alone(options: dict[str, Any]) -> Any:
    with tempfile.TemporaryDirectory(prefix="bench-", dir=shared_memory()) as directory:
        return child(__name__, options, env={"WS_LIFECYCLE_DIRECTORY": directory}, within=400)


# What is shown.


def _flat(data: Data) -> Figure | None:
    levels = list(data["open"])
    if len(levels) < 2:
        return None
    return ratio(data["open"][max(levels, key=int)][OURS], data["open"][min(levels, key=int)][OURS])


def _grown(data: Data) -> Figure:
    """Return the memory at the end, of that after the first tenth."""
    values = data["memory"][OURS]
    return figure([values[-1] / values[0]])


def _levels(data: Data) -> list[str]:
    return sorted(data["open"], key=int)


def tables(data: Data) -> list[Table]:
    """Return a table for each of the three."""
    levels = _levels(data)
    costs = [
        [f"{int(level):,}"]
        + [shown(figure(data["open"][level][n]).scaled(1e-3), 3) for n in (BARE, NOOP, OURS)]
        + [shown(ratio(data["open"][level][OURS], data["open"][levels[0]][OURS]), 3)]
        for level in levels
    ]
    kept = [
        [f"{data['messages'] * (step + 1) // STEPS:,}"]
        + [f"{data['memory'][name][step] / MIB:.2f}" for name in (NOOP, OURS)]
        for step in range(STEPS)
    ]
    head = ["open connections", *(f"{name}, µs" for name in (BARE, NOOP, OURS)), "of that at 1"]
    return [
        Table("A message, while others wait", head, costs),
        Table("Series of one worker", ["routes", "series"], _pairs(data["routes"])),
        Table(
            f"Series at {ROUTES_OF_WORKERS} routes", ["workers", "series"], _pairs(data["workers"])
        ),
        Table("Memory, MiB", ["messages", NOOP, OURS], kept),
    ]


def _pairs(found: dict[str, int]) -> list[list[str]]:
    return [[number, f"{count:,}"] for number, count in found.items()]


def bars(data: Data) -> list[Bar]:
    """Return what is demanded: that nothing grows."""
    return [
        Bar(
            demand="a message at 50,000 open connections, of that at 1",
            limit=1.1,
            unit="×",
            measured=_flat(data),
        ),
        Bar(
            demand="memory after 10,000,000 messages, of that after 1,000,000",
            limit=1.01,
            unit="×",
            measured=_grown(data),
        ),
    ]


def panels(data: Data) -> list[Panel]:
    """Return a chart for each table."""
    costs = {
        name: [(int(n), figure(data["open"][n][name]).median / 1e3) for n in _levels(data)]
        for name in (NOOP, OURS)
    }
    steps = [data["messages"] * (step + 1) / STEPS for step in range(STEPS)]
    kept = {
        name: list(zip(steps, (value / MIB for value in values), strict=True))
        for name, values in data["memory"].items()
    }
    return [
        Panel(
            name="message",
            title="CPU a message, while other connections wait",
            unit="µs",
            across="open connections",
            points=costs,
            log=True,
        ),
        _series_panel("routes", "Series of one worker", data["routes"]),
        _series_panel("workers", f"Series at {ROUTES_OF_WORKERS} routes", data["workers"]),
        Panel(name="memory", title="Resident set", unit="MiB", across="messages", points=kept),
    ]


def _series_panel(name: str, title: str, found: dict[str, int]) -> Panel:
    points = [(float(number), float(count)) for number, count in found.items()]
    return Panel(name=name, title=title, unit="series", across=name, points={OURS: points})


if __name__ == "__main__":
    answer(work)
