"""`make demo` as a person runs it: it shows the faults, ends when asked to, and leaves nothing."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.servers.harness import ROOT, eventually
from tests.support import CONNECT, DISCONNECT, books, receive_text, scope, totals
from ws_lifecycle_metrics import Config, LifecycleMiddleware
from ws_lifecycle_metrics.store.workers import existing

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def demo(folder: Path, **env: str) -> Iterator[subprocess.Popen[str]]:
    """Start the demo in a session of its own, its directory below `folder`."""
    process = subprocess.Popen(
        [sys.executable, "-m", "examples.demo"],
        cwd=ROOT,
        env={**os.environ, "WS_LIFECYCLE_DIRECTORY": str(folder), **env},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        with process:
            yield process
    finally:
        try:
            eventually(lambda: not session(process.pid), 5, "no process of the demo")
        finally:
            for pid in session(process.pid):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
    assert not list(folder.iterdir()), "a directory of the demo is left"


def session(leader: int) -> list[int]:
    """Return the processes of a session that live."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it may end while it is read
            state, _parent, _group, number = stat.read_text().rpartition(") ")[2].split()[:4]
            if int(number) == leader and state != "Z":
                found.append(int(stat.parent.name))
    return found


def rows(output: str) -> dict[str, list[str]]:
    """Return the cells of the last table's lines by their first cell."""
    final = output[output.rindex("\nroute ") :]
    return {cells[0]: cells[1:] for cells in map(str.split, final.splitlines()) if cells}


def test_shows_the_faults_and_ends_by_itself(tmp_path):
    with demo(tmp_path, DEMO_SECONDS="10") as process:
        output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    table = rows(output)
    assert table["route"][:2] == ["open", "closing"]
    assert int(table["/never-returns"][1]) >= 1  # another one may have come meanwhile
    assert int(table["app.send-after-close"][-1]) > 0
    assert table["app.send-after-close"][-2] == "/sends-after-close"
    for healthy in ("/chat/{room}", "/graphql"):
        *_, received, sent, violations = table[healthy]
        assert int(received) > 0
        assert int(sent) > 0
        assert violations == "0"
    assert re.search(r"metrics +http://127\.0\.0\.1:\d+/metrics", output)
    assert str(tmp_path) in output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_a_signal_during_the_start_ends_it(tmp_path, number):
    with demo(tmp_path) as process:
        eventually(lambda: list(tmp_path.glob("*/server.log")), 20, "the start of the server")
        process.send_signal(number)
        output, _ = process.communicate(timeout=30)
    assert process.returncode == 0, output


def test_a_child_that_dies_is_shown(tmp_path):
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "granian.py").write_text("raise SystemExit('no licence to serve')")
    folder = tmp_path / "segments"
    folder.mkdir()
    with demo(folder, PYTHONPATH=str(broken)) as process:
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 1, output
    assert "granian) has ended" in output
    assert "no licence to serve" in output
    assert "Traceback" not in output


def test_bad_seconds_are_named(tmp_path):
    with demo(tmp_path, DEMO_SECONDS="soon") as process:
        output, _ = process.communicate(timeout=20)
    assert process.returncode == 2
    assert "DEMO_SECONDS='soon'" in output


class Guest:
    """A client of the chat whose server takes a message only when told to."""

    def __init__(self, app: Any) -> None:
        self.events: asyncio.Queue[Any] = asyncio.Queue()
        self.events.put_nowait(CONNECT)
        self.joined, self.asked, self.taken = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.task = asyncio.create_task(app(scope(path="/chat/x"), self.events.get, self.send))

    async def send(self, message: Any) -> None:
        if message["type"] == "websocket.accept":
            self.joined.set()
        else:
            self.asked.set()
            await self.taken.wait()


def test_chat_sends_nothing_to_who_has_left_meanwhile(tmp_path):
    from examples.demo.app import api

    config = Config(service="demo", directory=str(tmp_path))
    app = LifecycleMiddleware(api, config=config)

    async def chat() -> None:
        guests = [Guest(app) for _ in range(3)]
        for guest in guests:
            await guest.joined.wait()
        guests[0].events.put_nowait(receive_text("hi"))
        asked = [asyncio.create_task(guest.asked.wait()) for guest in guests]
        await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
        leaving = next(guest for guest in guests[1:] if not guest.asked.is_set())
        leaving.events.put_nowait(DISCONNECT)
        await leaving.task
        for guest in guests:
            guest.taken.set()
            guest.events.put_nowait(DISCONNECT)
        await asyncio.gather(*(guest.task for guest in guests))
        for task in asked:
            task.cancel()

    async def main() -> None:
        await asyncio.wait_for(chat(), 20)

    asyncio.run(main())
    assert totals(books(config), "protocol_violations") == 0
    worker = existing(config)
    assert worker is not None
    worker.close()
