"""Healthy workers on a machine whose processors are all taken: is anything called stuck?

    python -m benchmarks.false_alarms [SECONDS [HOGS]]

Other processes of the same priority keep every core busy, clients talk to two workers of
uvicorn, the sidecar is read every second. Ten minutes and three hogs a core by default.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.servers.blockers import UVICORN
from tests.servers.load import dial
from tests.servers.sidecar import Sidecar, hanging, sidecar

CLIENTS = 20


@dataclass
class Result:
    """What was seen: readings, alarms by name and labels, and the worst of healthy workers."""

    readings: int = 0
    alarms: Counter[str] = field(default_factory=Counter)
    messages: int = 0
    oldest_beat: float = 0.0
    slowest_scrape: float = 0.0


def hog() -> None:
    while True:
        pass


async def talk(url: str, until: float, result: Result) -> None:
    async with dial(url) as client:
        while time.monotonic() < until:
            await client.send('{"do": "pid"}')
            await client.recv()
            result.messages += 1
            await asyncio.sleep(0.1)


def read(watcher: Sidecar, result: Result) -> None:
    found = watcher.metrics()
    result.readings += 1
    for (name, labels), value in found.items():
        if value and name in ("asgi_worker_stuck", "websocket_server_stuck_connections"):
            result.alarms[f"{name}{sorted(labels)}"] += 1
    now = next(v for (name, _), v in found.items() if name == "asgi_exporter_time_seconds")
    beats = [v for (n, _), v in found.items() if n == "asgi_worker_heartbeat_timestamp_seconds"]
    result.oldest_beat = max([result.oldest_beat, *(now - beat for beat in beats)])
    result.slowest_scrape = watcher.slowest


async def watch(url: str, watcher: Sidecar, seconds: float, result: Result) -> None:
    until = time.monotonic() + seconds
    clients = [asyncio.create_task(talk(url, until, result)) for _ in range(CLIENTS)]
    while time.monotonic() < until:
        await asyncio.to_thread(read, watcher, result)
        await asyncio.sleep(1)
    await asyncio.gather(*clients)


def measure(seconds: float, hogs: int, folder: Path) -> Result:
    result = Result()
    with hanging(UVICORN, folder) as running, sidecar(folder) as watcher:
        context = multiprocessing.get_context("spawn")
        busy = [context.Process(target=hog, daemon=True) for _ in range(hogs)]
        for process in busy:
            process.start()
        try:
            asyncio.run(watch(running.url, watcher, seconds, result))
        finally:
            for process in busy:
                process.kill()
                process.join(10)
    return result


def main() -> int:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 600.0
    cores = len(os.sched_getaffinity(0))
    hogs = int(sys.argv[2]) if len(sys.argv) > 2 else 3 * cores
    with tempfile.TemporaryDirectory() as folder:
        result = measure(seconds, hogs, Path(folder))
    print(f"{seconds:.0f} s, {hogs} busy processes on {cores} cores, load {os.getloadavg()[0]:.1f}")
    print(f"{result.readings} readings, {result.messages} messages echoed")
    print(f"oldest beat {result.oldest_beat:.2f} s, slowest scrape {result.slowest_scrape:.2f} s")
    print(f"false alarms: {dict(result.alarms) or 'none'}")
    return bool(result.alarms)


if __name__ == "__main__":
    sys.exit(main())
