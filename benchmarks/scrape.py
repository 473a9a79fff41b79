"""What a scrape costs: this project's beside prometheus_client's multiprocess mode.

Workers are processes of their own. Collecting and rendering is measured in turn in one process,
as both do it in the process that is scraped; then the sidecar itself is scraped over HTTP.
"""

from __future__ import annotations

import asyncio
import functools
import http.client
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ws_lifecycle_metrics.conformance.process import HOST, Command, Running, StartError, start

from .measure import OURS, ROOT, Figure, Samples, cpu_ns, figure, interleave, ratio, versions
from .part import Bar, Data, Panel, Run, Table, shown
from .places import shared_memory
from .processes import Deadline, MeasureError, answer, child, say
from .workers import (
    SERVICE,
    config,
    describe,
    keep_with_prometheus_client,
    routes_for,
    running,
)

NAME = "scrape"
TITLE = "Scrape"
ABOUT = """\
`/metrics` of one host, whose workers have 1,000 series each. Both expose the same ones;
prometheus_client knows nothing of single connections, so their number changes nothing there.
Collecting alone, and collecting with rendering, which is prometheus_client's for both, are measured
in turn in one process. `sidecar` is the real one, asked over
HTTP each 1.1 s: the CPU time of its process above what it uses when nobody asks, and the time until
the answer is there."""

LEVELS = (0, 10_000, 80_000)
SERIES = 1_000
MULTIPROCESS = "prometheus_client, multiprocess mode"
COLLECT = ", collect"
SIDECAR, IDLE, WALL = "sidecar", "sidecar idle", "sidecar wall"
PERIOD = 1.1
"""Seconds from scrape to scrape: a collection is given to all who ask within one."""


# In the process that collects.


def collect(options: dict[str, Any]) -> dict[str, Any]:
    """Return ns of CPU time of a collection by each of the two, and how much they expose."""
    from prometheus_client import CollectorRegistry, generate_latest
    from prometheus_client.multiprocess import MultiProcessCollector

    from ws_lifecycle_metrics.store.snapshot import Source
    from ws_lifecycle_metrics.telemetry.prometheus import LifecycleCollector, render

    source = Source(config(options["directory"]))

    def ours() -> bytes:
        return render(source.take)[0]

    def registered() -> CollectorRegistry:
        registry = CollectorRegistry()
        MultiProcessCollector(registry, options["multiprocess"])  # type: ignore[no-untyped-call]  # it has no annotations
        return registry

    by_name: dict[str, Callable[[], bytes]] = {
        OURS: ours,
        MULTIPROCESS: lambda: generate_latest(registered()),
    }
    works: dict[str, Callable[[], object]] = {
        **by_name,
        OURS + COLLECT: lambda: list(LifecycleCollector(take=source.take).collect()),
        MULTIPROCESS + COLLECT: lambda: list(registered().collect()),
    }
    cases = {name: functools.partial(_cost, work) for name, work in works.items()}
    samples = asyncio.run(interleave(cases, options["rounds"]))
    lines = {name: make().decode().splitlines() for name, make in by_name.items()}
    series = {
        name: sum(not line.startswith("#") for line in found) for name, found in lines.items()
    }
    return {"samples": samples, "series": series}


def _cost(work: Callable[[], object]) -> float:
    return float(cpu_ns(work))


# The sidecar.


def threads_cpu(pid: int) -> float:
    """Return the CPU time of all threads of another process, in ns."""
    tasks = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return float(sum(int(task.read_text().split()[0]) for task in tasks))


def scrape(port: int) -> float:
    """Scrape once; return the seconds that it took."""
    began = time.perf_counter()
    connection = http.client.HTTPConnection(HOST, port, timeout=20)
    try:
        connection.request("GET", "/metrics")
        found = connection.getresponse()
        found.read()
    finally:
        connection.close()
    if found.status != 200:
        raise MeasureError(f"the sidecar answered {found.status}")
    return time.perf_counter() - began


def sidecar(directory: str, rounds: int) -> Samples:
    """Return CPU ns of a scrape and of an idle period, and ns until the answer."""

    def argv(port: int) -> list[str]:
        command = f"-m ws_lifecycle_metrics serve --port {port} --service {SERVICE}"
        return [sys.executable, *command.split(), "--directory", directory]

    with tempfile.TemporaryDirectory() as folder:
        command = Command(name="sidecar", argv=argv, cwd=ROOT)
        try:
            served = start(command, Path(folder), {}, timeout=Deadline.left(30))
        except StartError as error:
            raise MeasureError(str(error).strip().splitlines()[-1]) from None
        try:
            return _scrapes(served, rounds)
        except OSError as error:
            raise MeasureError(f"the sidecar did not answer: {error}") from None
        finally:
            served.stop()


def _scrapes(served: Running, rounds: int) -> Samples:
    found: Samples = {SIDECAR: [], IDLE: [], WALL: []}
    scrape(served.port)
    time.sleep(PERIOD)
    for _ in range(rounds):
        before = threads_cpu(served.pid)
        time.sleep(PERIOD)
        idle = threads_cpu(served.pid)
        took = scrape(served.port)
        time.sleep(max(0.0, PERIOD - took))
        after = threads_cpu(served.pid)
        found[IDLE].append((idle - before) / PERIOD)
        found[SIDECAR].append(after - idle - (idle - before))
        found[WALL].append(took * 1e9)
    return found


# In the process that asks.


def measure(run: Run) -> Data:
    """Measure hosts with more and more connections."""
    levels: dict[str, Any] = {}
    routes = routes_for(SERIES)
    for level in LEVELS:
        connections = run.effort.count(level, 0)
        found: dict[str, Any] = {"samples": {}, "series": {}}
        for _ in range(max(1, run.effort.processes // 2)):
            one = _host(run, connections, routes)
            found["series"] = one["series"]
            for name, values in one["samples"].items():
                found["samples"].setdefault(name, []).extend(round(value) for value in values)
        found["connections"] = connections
        levels[str(level)] = found
        say(f"  {connections} connections")
    return {
        "levels": levels,
        "routes": routes,
        "workers": run.effort.workers,
        "versions": versions(("prometheus-client",)),
    }


def _host(run: Run, connections: int, routes: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="bench-", dir=shared_memory()) as name:
        folder, directory = Path(name), str(Path(name) / "segments")
        with running(directory, run.effort.workers, connections, routes) as snapshot:
            describe(snapshot, folder)
            files = keep_with_prometheus_client(folder, run.effort.workers)
            options = {"directory": directory, "multiprocess": files, "rounds": run.effort.rounds}
            found: dict[str, Any] = child(__name__, options)
            found["samples"] |= sidecar(directory, max(1, run.effort.rounds // 2))
            return found


# What is shown.


def _level(data: Data, level: int, name: str) -> Figure | None:
    found = data["levels"].get(str(level))
    return figure(found["samples"][name]).scaled(1e-6) if found else None


def _ratio(data: Data, level: int) -> Figure | None:
    found = data["levels"].get(str(level))
    samples = found["samples"] if found else None
    return ratio(samples[OURS + COLLECT], samples[MULTIPROCESS + COLLECT]) if samples else None


def tables(data: Data) -> list[Table]:
    """Return a table with a row for each number of connections."""
    rows = []
    for found in data["levels"].values():
        samples = found["samples"]
        cells = []
        for kind in (COLLECT, ""):
            names = OURS + kind, MULTIPROCESS + kind
            cells += [shown(figure(samples[name]).scaled(1e-6), 1) for name in names]
            cells.append(shown(ratio(*(samples[name] for name in names))))
        cells += [shown(figure(samples[n]).scaled(1e-6), 1) for n in (SIDECAR, WALL, IDLE)]
        series = found["series"]
        rows.append([f"{found['connections']:,}", f"{series[OURS]:,}", *cells])
    head = ["connections", "series", "collect, CPU ms", "prometheus_client's, CPU ms", "of it"]
    head += ["with rendering, CPU ms", "prometheus_client's, CPU ms", "of it"]
    head += ["sidecar: CPU ms", "until the answer, ms", "idle, CPU ms a second"]
    title = f"A scrape of {data['workers']} workers with {data['routes']} routes"
    return [Table(title, head, rows)]


def bars(data: Data) -> list[Bar]:
    """Return what is demanded of a scrape."""
    return [
        Bar(
            demand="collect of 8 workers of 1,000 series each, of prometheus_client's multiprocess",
            limit=0.5,
            unit="×",
            measured=_ratio(data, 0),
        ),
        Bar(
            demand="80,000 connections: CPU of the sidecar",
            limit=100,
            unit="ms",
            measured=_level(data, 80_000, SIDECAR),
        ),
    ]


def panels(data: Data) -> list[Panel]:
    """Return one chart."""
    values = {}
    for level, found in data["levels"].items():
        for name in (OURS, MULTIPROCESS):
            one = _level(data, int(level), name)
            if one is not None and (name == OURS or level == "0"):
                values[
                    name if name != OURS else f"{OURS}, {found['connections']:,} connections"
                ] = one
    title = f"CPU of a scrape, {data['workers']} workers"
    return [Panel(name="cpu", title=title, unit="ms", values=values)]


if __name__ == "__main__":
    answer(collect)
