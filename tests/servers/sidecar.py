"""The sidecar as its users run it, and what it says over time."""

from __future__ import annotations

import http.client
import json
import os
import re
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.servers.harness import HOST, ROOT, SEGMENTS, Running, eventually, start
from ws_lifecycle_metrics.conformance.process import LOG, free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.servers.harness import Server

SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$")
LABEL = re.compile(r'(\w+)="([^"]*)"')
SERVICE = "test"


def environment(folder: Path, **options: object) -> dict[str, str]:
    """What a worker or a sidecar is started with; `options` are those of `Config`."""
    given = {f"WS_LIFECYCLE_{name.upper()}": str(value) for name, value in options.items()}
    directory = str(folder / SEGMENTS)
    return {"WS_LIFECYCLE_SERVICE": SERVICE, "WS_LIFECYCLE_DIRECTORY": directory, **given}


@dataclass
class Sidecar:
    """A running sidecar; `slowest` is the longest time that /metrics took, in s."""

    port: int
    process: subprocess.Popen[bytes]
    log: Path
    slowest: float = 0.0
    took: list[float] = field(default_factory=list)

    def get(self, path: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection(HOST, self.port, timeout=10)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def json(self, path: str) -> Any:
        status, text = self.get(path)
        assert status == 200, text
        return json.loads(text)

    def metrics(self) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        began = time.monotonic()
        status, text = self.get("/metrics")
        self.took.append(time.monotonic() - began)
        self.slowest = max(self.slowest, self.took[-1])
        assert status == 200, text
        found = map(SAMPLE.match, text.splitlines())
        return {
            (line[1], frozenset(LABEL.findall(line[2] or ""))): float(line[3])
            for line in found
            if line is not None
        }

    def value(self, name: str, **labels: str) -> float | None:
        """The sample of this name with exactly these labels, None if there is none."""
        return self.metrics().get((name, frozenset(labels.items())))

    def stuck(self) -> dict[str, set[str]]:
        """The reasons by worker of `asgi_worker_stuck` that stand at 1."""
        found: dict[str, set[str]] = {}
        for (name, labels), value in self.metrics().items():
            if name == "asgi_worker_stuck" and value:
                pairs = dict(labels)
                found.setdefault(pairs["worker"], set()).add(pairs["reason"])
        return found

    def worker_of(self, pid: int) -> str | None:
        """The number of the living worker with this pid."""
        found = self.json("/workers")["workers"]
        return next((w["worker"] for w in found if w["pid"] == pid and w["reason"] != "dead"), None)

    def wait(self, what: Callable[[], object], timeout: float, name: str = "") -> tuple[Any, float]:
        """Poll until it is true; return it and the seconds that it took."""
        began = time.monotonic()
        try:
            return eventually(what, timeout, name), time.monotonic() - began
        except AssertionError as error:
            error.add_note(f"the sidecar printed:\n{self.log.read_text()}")
            raise


@contextmanager
def sidecar(folder: Path, *arguments: str, **options: object) -> Iterator[Sidecar]:
    """Run the sidecar for the segments in `folder`."""
    port = free_port()
    log = folder / f"sidecar-{port}.log"
    command = [sys.executable, "-m", "ws_lifecycle_metrics", "serve", "--port", str(port)]
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*command, *arguments],
            cwd=ROOT,
            env={**os.environ, **environment(folder, **options)},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    running = Sidecar(port, process, log)

    def ready() -> bool:
        with suppress(OSError):
            return running.get("/readyz")[0] == 200
        return False

    try:
        eventually(ready, 20, "the sidecar")
        yield running
    finally:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(timeout=10)


@contextmanager
def hanging(server: Server, folder: Path, **options: object) -> Iterator[Running]:
    """Run a server that may hang: nothing is expected of how it ends."""
    (folder / SEGMENTS).mkdir(mode=0o700, exist_ok=True)
    running = start(server, folder, environment(folder, **options))
    try:
        yield running
    except BaseException as error:
        error.add_note(f"{server.name} printed:\n{(folder / LOG).read_text(errors='replace')}")
        raise
    finally:
        running.stop(timeout=0.5)
