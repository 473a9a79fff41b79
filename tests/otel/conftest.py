"""Workers, a sidecar that pushes, the collector and the receiver, once for all tests here."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.otel.collector import HOST, Receiver, collector, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]


def environment(**more: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("OTEL_", "WS_LIFECYCLE_"))}
    return {**kept, "PYTHONPATH": str(ROOT), "NO_PROXY": "*", **more}


@contextmanager
def worker(directory: Path, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tests.otel.worker", str(directory), *map(str, arguments)]
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environment(),
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.communicate(timeout=30)


@contextmanager
def sidecar(directory: Path, log: Path, **variables: str) -> Iterator[tuple[str, subprocess.Popen]]:
    """Run `serve --otlp` for a directory; yield its address and its process."""
    command = [
        *(sys.executable, "-m", "ws_lifecycle_metrics", "serve", "--otlp"),
        *("--directory", str(directory), "--service", "parity", "--port", "0"),
    ]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stderr=output, env=environment(**variables))
    try:
        found = eventually(
            lambda: re.search(r"serves (http://\S+)/metrics", log.read_text()), "the sidecar serves"
        )
        yield found[1], process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(30)


@dataclass
class Stack:
    address: str
    receiver: Receiver
    directory: Path
    workers: list[subprocess.Popen[str]]


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Three workers, one of them hung; a fourth that was killed; all seen through the collector."""
    place = tmp_path_factory.mktemp("otel")
    directory = place / "segments"
    with ExitStack() as running:
        workers = [running.enter_context(worker(directory, number)) for number in (1, 2)]
        workers.append(running.enter_context(worker(directory, 3, "hang")))
        with worker(directory, 4):
            pass  # killed with connections open
        receiver = running.enter_context(Receiver())
        url = running.enter_context(collector(receiver, place))
        address, _ = running.enter_context(
            sidecar(
                directory,
                place / "sidecar.log",
                OTEL_EXPORTER_OTLP_ENDPOINT=url,
                OTEL_METRIC_EXPORT_INTERVAL="500",
                OTEL_EXPORTER_OTLP_COMPRESSION="gzip",
                OTEL_RESOURCE_ATTRIBUTES="deployment.environment.name=test",
            )
        )
        assert address.startswith(f"http://{HOST}:")
        yield Stack(address, receiver, directory, workers)
