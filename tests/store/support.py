"""Workers, readings and processes for the tests of the store."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

from ws_lifecycle_metrics import catalog
from ws_lifecycle_metrics.catalog import Metric
from ws_lifecycle_metrics.config import Config
from ws_lifecycle_metrics.protocol import OPEN
from ws_lifecycle_metrics.store import layout as at
from ws_lifecycle_metrics.store.directory import Directory, service_path
from ws_lifecycle_metrics.store.snapshot import Histogram, Snapshot, Source
from ws_lifecycle_metrics.store.worker import Worker

ROOT = Path(__file__).parents[2]
SERVICE = "tested"
ROUTE = at.ROUTE_BLOCK
ACCEPTED = ROUTE[catalog.HANDSHAKES.name].offsets[("accepted",)]
CLOSED = ROUTE[catalog.CLOSES.name].offsets[("client", "1000")]
OPEN_STATE = OPEN.code + 1

Series = dict[tuple[str, tuple[str, ...]], float]


def config(base: Path, service: str = SERVICE, **options: object) -> Config:
    return Config(service=service, directory=str(base), **options)


def place(base: Path) -> Path:
    return service_path(str(base), SERVICE)


def segments(base: Path) -> list[Path]:
    return sorted(path for path in place(base).iterdir() if path.name.endswith(".segment"))


def start_worker(base: Path, **options: object) -> Worker:
    """Start a worker that no thread owns, so that a test can have several."""
    made = config(base, **options)
    worker = Worker(made, Directory(service_path(made.directory, made.service), create=True))
    worker.segment.publish()
    return worker


def open_connection(worker: Worker, route: str | None = "/chat") -> memoryview:
    """Count an accepted connection as the middleware does; return its record."""
    record = worker.route(route).take()
    record[at.OPENED_AT] = record[at.STATE_AT] = record[at.ANSWERED_AT] = time.monotonic_ns()
    record[at.STATE] = OPEN_STATE
    worker.route(route).words[ACCEPTED] += 1
    return record


def send_unwritten(worker: Worker, record: memoryview, texts: int) -> None:
    """Count sent texts that the record gets with the next beat."""
    worker.noted[1] = SimpleNamespace(publish=lambda _: record.__setitem__(at.SENT_TEXT, texts))


def die(worker: Worker) -> None:
    """End a worker as SIGKILL does: the lock is gone, and nothing else is said."""
    worker.segment.abandon()


def take(base: Path) -> Snapshot:
    return Source(config(base)).take()


def value(snapshot: Snapshot, metric: Metric, *labels: str) -> float:
    """Return the sum of a metric's series whose first labels are these."""
    found = next(family for family in snapshot.families() if family.metric is metric)
    matching = [v for key, v in found.series.items() if key[: len(labels)] == labels]
    return sum(sum(v.counts) if isinstance(v, Histogram) else v for v in matching)


def counters(snapshot: Snapshot) -> Series:
    """Return everything that must never fall: counters, and each word of the histograms."""
    series: Series = {}
    for family in snapshot.families():
        if family.metric.kind is catalog.Kind.GAUGE:
            continue
        for labels, found in family.series.items():
            words = (*found.counts, found.sum) if isinstance(found, Histogram) else (found,)
            series |= {(f"{family.metric.name}[{i}]", labels): n for i, n in enumerate(words)}
    return series


def fallen(before: Series, after: Series) -> dict[object, tuple[float, float | None]]:
    return {key: (n, after.get(key)) for key, n in before.items() if n and after.get(key, -1.0) < n}


def python(code: str, *arguments: object, **options: object) -> list[str]:
    return [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]


def environment(**more: str) -> Mapping[str, str]:
    kept = {name: text for name, text in os.environ.items() if not name.startswith("WS_LIFECYCLE_")}
    return {**kept, "PYTHONPATH": str(ROOT), **more}


def run(code: str, *arguments: object, timeout: float = 60) -> str:
    """Run a program in an interpreter of its own; return what it printed."""
    done = subprocess.run(
        python(code, *arguments),
        env=environment(),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def running(code: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Run a program beside the test; it is killed at the end at the latest."""
    process = subprocess.Popen(
        python(code, *arguments),
        env=environment(),
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=30)


def eventually(holds: Callable[[], bool], timeout: float = 20) -> None:
    deadline = time.monotonic() + timeout
    while not holds():
        assert time.monotonic() < deadline, "it did not happen in time"
        os.sched_yield()
