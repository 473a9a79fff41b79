"""Workers that are processes: with connections, or keeping the same series by prometheus_client."""

from __future__ import annotations

import asyncio
import json
import math
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from ws_lifecycle_metrics import Config, LifecycleMiddleware
from ws_lifecycle_metrics.catalog import Kind
from ws_lifecycle_metrics.store.snapshot import Snapshot, Source

from .echo import SCOPE, Server, converse, echo, open_idle
from .places import shared_memory
from .processes import background, child

SERVICE = "bench"
SERIES = "series.json"


def config(directory: str, **options: Any) -> Config:
    """Return what all workers, and those who read them, are configured with."""
    return Config(service=SERVICE, directory=directory, **options)


@contextmanager
def running(directory: str, count: int, connections: int, routes: int) -> Iterator[Snapshot]:
    """Run workers that share `connections` idle ones; yield what a reader sees of them."""
    with ExitStack() as stack:
        for number in range(count):
            mine = connections // count + (number < connections % count)
            options = {"directory": directory, "connections": mine, "routes": routes}
            stack.enter_context(background(__name__, {"worker": options}, {}))
        yield Source(config(directory)).take()


def series(routes: int, count: int) -> int:
    """Return how many series a host of so many workers exposes."""
    from ws_lifecycle_metrics.telemetry.prometheus import render

    with (
        tempfile.TemporaryDirectory(prefix="bench-", dir=shared_memory()) as directory,
        running(directory, count, 0, routes),
    ):
        return samples_of(render(Source(config(directory)).take)[0])


def samples_of(exposition: bytes) -> int:
    """Count the samples of an exposition; each is a series to Prometheus."""
    return sum(not line.startswith(b"#") for line in exposition.splitlines())


def routes_for(wanted: int) -> int:
    """Return how many routes give a worker so many series."""
    one, two = series(1, 1), series(2, 1)
    return 1 + max(0, math.ceil((wanted - one) / (two - one)))


async def work(directory: str, connections: int, routes: int) -> None:
    """Be a worker until standard input ends: each route had traffic, and has idle connections."""
    paths = [f"/route-{number}" for number in range(routes)]
    app = LifecycleMiddleware(
        echo, config=config(directory, route=lambda scope: scope["path"], routes=tuple(paths))
    )
    for path in paths:
        converse(_at(app, path), [Server("x" * 64, 10)])
    waiting = []
    for number, path in enumerate(paths):
        mine = connections // routes + (number < connections % routes)
        waiting += await open_idle(_at(app, path), mine)
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    # Ended as a killed worker is: nobody reads what closing so many would write.
    os._exit(0)


def _at(app: Any, path: str) -> Any:
    return lambda scope, receive, send: app({**SCOPE, "path": path}, receive, send)


def describe(snapshot: Snapshot, folder: Path) -> None:
    """Write down all series of a host, for prometheus_client to keep the same."""
    found = [
        {
            "name": family.metric.prometheus,
            "kind": family.metric.kind,
            "labels": family.metric.labels,
            "buckets": family.metric.buckets,
            "series": list(family.series),
        }
        for family in snapshot.families()
    ]
    (folder / SERIES).write_text(json.dumps(found))


def keep_with_prometheus_client(folder: Path, count: int) -> str:
    """Let as many processes write the same series in multiprocess mode; return their directory."""
    files = folder / "multiprocess"
    files.mkdir()
    env = {"PROMETHEUS_MULTIPROC_DIR": str(files)}
    for number in range(count):
        options = {"series": str(folder / SERIES), "number": number}
        child(__name__, {"prometheus": options}, env=env)
    return str(files)


def write_series(series: str, number: int) -> int:
    """Be a worker that counts with prometheus_client; return the number of its series."""
    from prometheus_client import Counter, Gauge, Histogram

    written = 0
    for family in json.loads(Path(series).read_text()):
        name, labels = family["name"], family["labels"]
        made: Any
        if family["kind"] == Kind.HISTOGRAM:
            made = Histogram(name, "help", labels, buckets=family["buckets"], registry=None)
        elif family["kind"] == Kind.COUNTER:
            made = Counter(name, "help", labels, registry=None)
        else:
            made = Gauge(name, "help", labels, registry=None, multiprocess_mode="livesum")
        for values in family["series"]:
            # A worker's own series are written by that worker alone.
            if dict(zip(labels, values, strict=True)).get("worker", str(number)) == str(number):
                one = made.labels(*values) if values else made
                _touch(one, family["kind"])
                written += 1
    return written


def _touch(one: Any, kind: str) -> None:
    if kind == Kind.HISTOGRAM:
        one.observe(0.3)
    elif kind == Kind.COUNTER:
        one.inc(3)
    else:
        one.set(1)


def main() -> None:
    """Be what the command line says."""
    options = json.loads(sys.argv[1])
    if "worker" in options:
        asyncio.run(work(**options["worker"]))
    else:
        print(json.dumps(write_series(**options["prometheus"])))


if __name__ == "__main__":
    main()
