"""Granian 2.3.2 freezes a whole process when an application leaves a receive() behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.servers.blockers import APP, LATE, Seen, dial
from tests.servers.harness import ROOT, Server, eventually
from tests.servers.sidecar import hanging, sidecar

if TYPE_CHECKING:
    from pathlib import Path

THRESHOLD = 5.0


@dataclass(frozen=True, kw_only=True)
class OldServer(Server):
    """A server of a version of its own, in an environment of its own."""

    python: str

    def argv(self, port: int) -> list[str]:
        return [self.python, *super().argv(port)[1:]]


def install(folder: Path, requirement: str) -> str:
    """Make an environment with one package; return its interpreter."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True, timeout=60)
    python = folder / "bin" / "python"
    pip = [sys._base_executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
    subprocess.run([*pip, requirement], check=True, timeout=300)
    return str(python)


@pytest.mark.slow
def test_the_freeze_is_told(tmp_path: Path) -> None:
    seen = see_the_freeze(tmp_path)
    print(seen)  # noqa: T201  # the figures, for those who ask for them
    assert seen.after <= THRESHOLD + LATE + 0.5


def see_the_freeze(folder: Path) -> Seen:
    """Freeze one of two workers, and thaw it; return what was seen meanwhile."""
    server = OldServer(
        name="granian-2.3.2",
        command=f"granian --interface asgi --workers 2 {APP}",
        ready="Started worker-",
        python=install(folder / "venv", "granian==2.3.2"),
    )
    os.environ |= {"BLOCKERS_FREEZE": "1", "PYTHONPATH": str(ROOT)}
    try:
        return _freeze(server, folder)
    finally:
        del os.environ["BLOCKERS_FREEZE"], os.environ["PYTHONPATH"]


def _freeze(server: Server, folder: Path) -> Seen:
    with ExitStack() as stack:
        running = stack.enter_context(hanging(server, folder))
        watcher = stack.enter_context(sidecar(folder))
        clients = {}

        def both() -> bool:
            client = stack.enter_context(dial(running.url))
            clients.setdefault(int(client.recv(timeout=10)), client)
            return len(clients) == 2

        eventually(both, 20, "a connection to each worker")
        pid, client = next(iter(clients.items()))
        worker = watcher.worker_of(pid)
        assert worker is not None
        client.send(json.dumps({"do": "freeze"}))
        _, after = watcher.wait(
            lambda: watcher.stuck().get(worker) == {"loop_blocked"}, THRESHOLD + LATE + 1, "frozen"
        )
        found = watcher.json("/workers")["workers"]
        own = next(w for w in found if w["worker"] == worker)
        other = next(w for w in found if w["worker"] != worker)
        assert other["reason"] is None
        client.send("thaw")  # it lasts until the client speaks
        _, gone = watcher.wait(lambda: worker not in watcher.stuck(), 20, "well again")
        return Seen(
            "receive() left behind at the return",
            *(own["reason"], after, own["activity"], "-", gone),
            *(watcher.slowest, other["beat_age"]),
        )
