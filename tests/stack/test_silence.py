"""No alert fires for a service that is well, not even while its workers are reloaded."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING

import pytest
import websockets

from tests.servers.harness import Server, eventually
from tests.servers.sidecar import hanging, sidecar
from tests.stack.chain import missing, running
from tests.stack.conftest import skip_or_fail

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow

SERVER = Server(
    name="granian",
    command="granian --interface asgi --workers 2 examples.granian.app:app",
    ready="Started worker-",
)
SECONDS = float(os.environ.get("SILENCE_SECONDS", "300"))
RELOADS = 3
CLIENTS = 20


async def _client(url: str, over: threading.Event, counts: dict[str, int]) -> None:
    """Talk, leave, come again; a reload may break a conversation."""
    while not over.is_set():
        try:
            async with websockets.connect(url, proxy=None, open_timeout=20) as client:
                for _ in range(40):
                    await client.send("hello")
                    await asyncio.wait_for(client.recv(), 20)
                    await asyncio.sleep(0.1)
            counts["done"] += 1
        except (OSError, TimeoutError, websockets.WebSocketException):
            counts["broken"] += 1
            await asyncio.sleep(1)


@contextmanager
def load(url: str) -> Iterator[dict[str, int]]:
    """Healthy clients in a thread of their own."""
    over, counts = threading.Event(), {"done": 0, "broken": 0}

    async def everyone() -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(CLIENTS):
                group.create_task(_client(url, over, counts))

    thread = threading.Thread(target=lambda: asyncio.run(everyone()), daemon=True)
    thread.start()
    try:
        yield counts
    finally:
        over.set()
        thread.join(timeout=60)


def test_alerts_stay_silent_for_a_healthy_service(tmp_path: Path) -> None:
    if lacking := missing():
        skip_or_fail(lacking)
    with ExitStack() as stack:
        server = stack.enter_context(hanging(SERVER, tmp_path))
        watcher = stack.enter_context(sidecar(tmp_path))
        chain = stack.enter_context(running(tmp_path, watcher.port))
        counts = stack.enter_context(load(f"{server.url}/echo"))
        began = time.monotonic()
        for reload in range(1, RELOADS + 1):
            before = set(server.members())
            _wait_until(began + SECONDS * reload / (RELOADS + 1))
            os.kill(server.pid, signal.SIGHUP)
            eventually(lambda old=before: not old & _workers(watcher), 60, "new workers")
        _wait_until(began + SECONDS)
        fired = {
            (s["metric"]["alertname"], s["metric"].get("reason", ""))
            for s in chain.query(f'last_over_time(ALERTS{{alertstate="firing"}}[{SECONDS:.0f}s])')
        }
        print(f"{counts} in {SECONDS:.0f} s with {RELOADS} reloads; fired: {fired}")  # noqa: T201  # a figure for those who ask
        assert chain.value("sum(websocket_server_handshakes_total)") > 50
        assert counts["done"] > 20
        assert fired == set()
        assert chain.webhook.alerts == []


def _workers(watcher: object) -> set[int]:
    found: list[dict[str, int]] = []
    with suppress(OSError):
        found = watcher.json("/workers")["workers"]  # type: ignore[attr-defined]  # a Sidecar
    return {worker["pid"] for worker in found if worker.get("reason") != "dead"}


def _wait_until(moment: float) -> None:
    while time.monotonic() < moment:
        time.sleep(min(1.0, max(0.0, moment - time.monotonic())))
