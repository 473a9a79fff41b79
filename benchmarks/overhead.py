"""In one process: what a message, a connection and an open connection cost, beside the peers.

Each candidate runs in a process of its own, which measures the bare application, a wrapper that
does nothing, and the candidate in turn. It is the thread's CPU time; a server in memory answers at
once, so nothing is measured but what stands between it and the application.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import os
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .echo import App, Idle, Server, converse, echo, noop, one_each, open_idle
from .measure import (
    BARE,
    NOOP,
    Figure,
    Samples,
    added,
    collector_off,
    cpu_ns,
    figure,
    interleave,
    ratio,
    versions,
)
from .part import Bar, Data, Panel, Run, Table, shown
from .peers import CANDIDATES
from .places import place, python_of
from .processes import alternate, answer, child, say

NAME = "overhead"
TITLE = "In one process"
ABOUT = """\
An echo application, texts of 64 bytes; a message is one event received or sent. Thread CPU time,
the garbage collector off; what candidates do in threads of their own, such as exporting, is only in
the end-to-end figures. `× no-op` is over the wrapper and the application together, in the same
round; who stays at 1 or below does not look at messages. On a quiet connection one text comes
each 0.3 s, so that what this project does once a beat is done for each of them. Memory is what
Python allocates and the files that are mapped, of one of many accepted connections that wait."""
MESSAGE, QUIET, CONNECTION, IDLE = "message", "quiet", "connection", "idle"
TEXT = "x" * 64
SAMPLE_NS = 25e6
OPEN = 20_000
QUIET_OPEN = 500
QUIET_SECONDS = 0.3
"""Longer than a beat: what is counted between two of them must be written for each message."""
KIB = 1024


# In the process of a candidate.

_kept: list[list[Idle]] = []
"""Connections that wait until the process ends: to end them would take longer than all the rest."""


def message_cost(app: App, count: int) -> float:
    """Return ns a message of one long conversation; an echo is two messages.

    What the connection costs is taken away: with some peers it is as much as 100 messages.
    """
    pairs = max(1, count // 2)
    empty = cpu_ns(lambda: converse(app, [Server(TEXT, 0)]))
    return (cpu_ns(lambda: converse(app, [Server(TEXT, pairs)])) - empty) / (2 * pairs)


def connection_cost(app: App, count: int) -> float:
    """Return ns of a conversation without a message: open and close."""
    servers = [Server(TEXT, 0) for _ in range(count)]
    return cpu_ns(lambda: converse(app, servers)) / count


def enough(cost: Callable[[App, int], float], app: App, wanted: float) -> int:
    """Return how many messages or connections make a sample of about `wanted` ns."""
    cost(app, 20)  # the first ones import and compile
    return max(20, int(wanted / max(100.0, cost(app, 200))))


async def quiet_cost(running: list[Idle]) -> float:
    """Return ns a message of connections that take one text each, and of what follows it."""
    with collector_off():
        began = time.thread_time_ns()
        one_each(running, TEXT)
        await asyncio.sleep(QUIET_SECONDS)
        return (time.thread_time_ns() - began) / (2 * len(running))


async def idle_memory(app: App, count: int, folder: Path | None) -> tuple[float, list[Idle]]:
    """Return bytes that one of many connections holds that are accepted and wait; and all these."""

    def held() -> int:
        gc.collect()
        files = [] if folder is None else [path.stat() for path in folder.rglob("*")]
        # Mapped pages are none of Python's objects; 512 is stat's unit of a block.
        return tracemalloc.get_traced_memory()[0] + sum(512 * file.st_blocks for file in files)

    tracemalloc.start()
    gc.disable()  # it would look again and again at all that is kept
    before = held()
    running = await open_idle(app, count)
    after = held()
    gc.enable()
    tracemalloc.stop()
    return (after - before) / count, running


async def costs(apps: dict[str, App], options: dict[str, Any]) -> dict[str, Samples]:
    """Return all samples of message and connection: figure to application to values."""
    found = {}
    for name, cost in ((MESSAGE, message_cost), (CONNECTION, connection_cost)):
        cases = {}
        for case, app in apps.items():
            count = enough(cost, app, options["sample_ns"])
            cases[case] = lambda cost=cost, app=app, count=count: cost(app, count)
            await asyncio.sleep(0)
        found[name] = await interleave(cases, options["rounds"])
    open_ = {case: await open_idle(app, options["quiet"]) for case, app in apps.items()}
    _kept.extend(open_.values())
    quiet = {case: functools.partial(quiet_cost, running) for case, running in open_.items()}
    found[QUIET] = await interleave(quiet, -(-options["rounds"] // 2))  # each takes its time
    return found


async def memory(apps: dict[str, App], options: dict[str, Any]) -> dict[str, Samples]:
    """Return bytes of an idle connection, one value for each application."""
    folder = Path(options["folder"]) if options["folder"] else None
    found: Samples = {}
    for case, app in apps.items():
        converse(app, [Server(TEXT, 2)])  # the first one makes what all others share
        _kept.append(await open_idle(app, 1))
        held, running = await idle_memory(app, options["open"], folder)
        _kept.append(running)
        found[case] = [held]
    return {IDLE: found}


def work(options: dict[str, Any]) -> dict[str, Any]:
    """Measure one candidate, in its own environment."""
    candidate = CANDIDATES[options["candidate"]]
    apps = {BARE: echo, NOOP: noop(echo), options["candidate"]: candidate.wrap(echo)}
    run = memory if options["open"] else costs
    return {
        "samples": asyncio.run(run(apps, options)),
        "versions": versions(candidate.distributions),
    }


# In the process that asks.


def measure(run: Run) -> Data:
    """Measure all candidates, their processes in turn."""
    found_versions: dict[str, str] = {}

    def one(key: str, open_: int) -> dict[str, Samples]:
        candidate = CANDIDATES[key]
        python = python_of(candidate)
        with place(candidate, run.sink) as env:
            folder = next((v for v in env.values() if os.path.isdir(v)), "")
            options = {
                "candidate": key,
                "rounds": run.effort.rounds,
                "sample_ns": SAMPLE_NS * run.effort.size,
                "open": open_,
                "quiet": run.effort.count(QUIET_OPEN, 100),
                "folder": folder,
            }
            result = child(__name__, options, python=python, env=env)
        found_versions.update(result["versions"])
        say(f"  {candidate.name}")
        samples: dict[str, Samples] = result["samples"]
        return samples

    timed, missing = alternate(run.candidates, run.effort.processes, lambda key: one(key, 0))
    keys = [key for key in run.candidates if key not in missing]
    count = run.effort.count(OPEN, 100)
    # Once: what is counted are allocations, and these do not depend on the machine's noise.
    held, lost = alternate(keys, 1, lambda key: one(key, count))
    return {
        "cases": {key: timed[key] | held.get(key, {}) for key in timed},
        "missing": {CANDIDATES[key].name: why for key, why in (missing | lost).items()},
        "open": count,
        "versions": found_versions,
    }


# What is shown.


def _added(data: Data, key: str, name: str) -> Figure | None:
    samples = data["cases"].get(key, {}).get(name)
    return added(samples[key], samples[NOOP]) if samples else None


def _ratio(data: Data, key: str, name: str) -> Figure | None:
    samples = data["cases"].get(key, {}).get(name)
    return ratio(samples[key], samples[NOOP]) if samples else None


def _floors(data: Data, app: str, name: str) -> Figure | None:
    values = [v for case in data["cases"].values() for v in case.get(name, {}).get(app, ())]
    return figure(values) if values else None


UNITS = {
    MESSAGE: (1e-3, "µs"),
    QUIET: (1e-3, "µs"),
    CONNECTION: (1e-3, "µs"),
    IDLE: (1 / KIB, "KiB"),
}


def tables(data: Data) -> list[Table]:
    """Return one table: a row for each application."""
    rows = [_floor_row(data, BARE), _floor_row(data, NOOP)]
    rows += [_row(data, key) for key in CANDIDATES if key in data["cases"]]
    head = ["", "a message, µs added", "× no-op"]
    head += ["a quiet connection's message, µs added", "× no-op"]
    head += ["a connection, µs added", "× no-op", "an open connection, KiB added"]
    return [Table("Cost over the no-op wrapper", head, rows)]


def _floor_row(data: Data, app: str) -> list[str]:
    cells = []
    for name, (factor, unit) in UNITS.items():
        found = _floors(data, app, name)
        digits = 3 if name == MESSAGE else 2
        text = "" if found is None else f"{found.median * factor:.{digits}f} {unit} in all"
        cells += [text, ""] if name != IDLE else [text]
    return [app, *cells]


def _row(data: Data, key: str) -> list[str]:
    cells = []
    for name, (factor, _) in UNITS.items():
        more, times = _added(data, key, name), _ratio(data, key, name)
        cells.append(
            "" if more is None else shown(more.scaled(factor), 3 if name == MESSAGE else 2)
        )
        if name != IDLE:
            cells.append("" if times is None else shown(times))
    return [CANDIDATES[key].name, *cells]


def bars(data: Data) -> list[Bar]:
    """Return what is demanded of this project."""

    def over(name: str) -> Figure | None:
        found = _added(data, "ours", name)
        return None if found is None else found.scaled(UNITS[name][0])

    return [
        Bar(demand="a message, over no-op", limit=0.30, unit="µs", measured=over(MESSAGE)),
        Bar(
            demand="a message, of the no-op wrapper's",
            limit=2.1,
            unit="×",
            measured=_ratio(data, "ours", MESSAGE),
        ),
        Bar(demand="a connection, over no-op", limit=6, unit="µs", measured=over(CONNECTION)),
        Bar(demand="an open connection, over no-op", limit=1.5, unit="KiB", measured=over(IDLE)),
    ]


def panels(data: Data) -> list[Panel]:
    """Return three charts: times of the no-op wrapper, twice, and memory."""

    def of(name: str, value: Callable[[Data, str, str], Figure | None]) -> dict[str, Figure]:
        found = {CANDIDATES[key].name: value(data, key, name) for key in CANDIDATES}
        return {title: shown for title, shown in found.items() if shown is not None}

    memory_of = {name: one.scaled(1 / KIB) for name, one in of(IDLE, _added).items()}
    return [
        Panel(
            name="message",
            title="CPU a message",
            unit="× no-op wrapper",
            values=of(MESSAGE, _ratio),
            log=True,
        ),
        Panel(
            name="connection",
            title="CPU a connection",
            unit="× no-op wrapper",
            values=of(CONNECTION, _ratio),
            log=True,
        ),
        Panel(
            name="memory",
            title="Memory, an open connection",
            unit="KiB over the no-op wrapper",
            values=memory_of,
        ),
    ]


if __name__ == "__main__":
    answer(work)
