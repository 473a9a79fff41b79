"""What the watch costs a worker with 10,000 connections: beats and scans, in CPU time.

Every second there are four beats and one scan; every five seconds the scan looks where 100
connections wait.
"""

from __future__ import annotations

import asyncio
import logging
import tempfile
import time
from typing import Any

from ws_lifecycle_metrics import Config, LifecycleMiddleware
from ws_lifecycle_metrics.store.workers import existing

from .echo import SCOPE, App
from .measure import Figure, Samples, added, figure
from .part import Bar, Data, Panel, Run, Table, shown
from .processes import alternate, answer, child

NAME = "watchdog"
TITLE = "The watch from inside"
ABOUT = """\
A process with idle connections does nothing but to beat and to scan; the share of one core is
compared with that of a process whose watch was switched off."""

CONNECTIONS = 10_000
SECONDS = 8.0
BAR = 0.5
SHARE = "share"
WATCHED, UNWATCHED = "with the watch", "without"


async def wait(_scope: Any, receive: Any, send: Any) -> None:
    """Accept, and read until the client leaves."""
    await receive()
    await send({"type": "websocket.accept"})
    while (await receive())["type"] == "websocket.receive":
        pass


async def connect(app: App, forever: asyncio.Event) -> None:
    """Be a client that sends one text and then nothing."""
    inbox = [{"type": "websocket.receive", "text": "x"}, {"type": "websocket.connect"}]

    async def receive() -> dict[str, Any]:
        if not inbox:
            await forever.wait()
            return {"type": "websocket.disconnect", "code": 1000}
        return inbox.pop()

    async def send(_message: object) -> None: ...

    await app(dict(SCOPE), receive, send)


async def share(connections: int, seconds: float, *, watched: bool, directory: str) -> float:
    """Return the share of a core in % that a worker with idle connections uses."""
    config = Config(service="cost", directory=directory)
    app, forever = LifecycleMiddleware(wait, config=config), asyncio.Event()
    tasks = [asyncio.create_task(connect(app, forever)) for _ in range(connections)]
    await asyncio.sleep(2)
    if not watched:
        worker = existing(config)
        assert worker is not None
        worker.watch.heartbeat.loop = None  # no beat, hence no scan
        worker.watch.heartbeat.rest()
    began, cpu = time.perf_counter(), time.process_time()
    await asyncio.sleep(seconds)
    found = 100 * (time.process_time() - cpu) / (time.perf_counter() - began)
    forever.set()
    await asyncio.gather(*tasks)
    return found


def work(options: dict[str, Any]) -> float:
    """Measure in this process."""
    logging.disable(logging.ERROR)  # that making so many connections holds up the loop
    with tempfile.TemporaryDirectory() as directory:
        return asyncio.run(share(**options, directory=directory))


def measure(run: Run) -> Data:
    """Measure both in turn, each in processes of its own."""
    options = {
        "connections": run.effort.count(CONNECTIONS, 10),
        "seconds": max(0.2, SECONDS * run.effort.size),
    }

    def one(_name: str) -> dict[str, Samples]:
        shares = {
            name: [child(__name__, {**options, "watched": name == WATCHED})]
            for name in (UNWATCHED, WATCHED)
        }
        return {SHARE: shares}

    found, missing = alternate([NAME], max(1, run.effort.processes // 2 + 1), one)
    samples = found.get(NAME, {}).get(SHARE, {})
    return {"samples": samples, "connections": options["connections"], "missing": missing}


def _cost(data: Data) -> Figure | None:
    samples = data["samples"]
    return added(samples[WATCHED], samples[UNWATCHED]) if samples else None


def tables(data: Data) -> list[Table]:
    """Return both, and the difference."""
    rows = [[name, shown(figure(values), 3)] for name, values in data["samples"].items()]
    cost = _cost(data)
    rows.append(["the watch", shown(cost, 3) if cost else ""])
    title = f"{data['connections']:,} idle connections"
    return [Table(title, ["", "% of a core"], rows)]


def bars(data: Data) -> list[Bar]:
    """Return what is demanded of the watch."""
    demand = "beats and scans for 10,000 connections"
    return [Bar(demand=demand, limit=BAR, unit="% of a core", measured=_cost(data))]


def panels(data: Data) -> list[Panel]:
    """Return one chart."""
    values = {name: figure(samples) for name, samples in data["samples"].items()}
    title = f"CPU of a worker with {data['connections']:,} idle connections"
    return [Panel(name="share", title=title, unit="% of a core", values=values)]


if __name__ == "__main__":
    answer(work)
