"""A worker that hangs is told by the sidecar, whatever hangs it, while the other one serves."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from tests.servers.blockers import (
    DEFAULT,
    GRANIAN,
    LATE,
    SHORT,
    UVICORN,
    Timing,
    hang_in_every_way,
    pair,
)
from ws_lifecycle_metrics.exporter import spy

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.slow
@pytest.mark.parametrize("timing", [SHORT, DEFAULT], ids=["short", "default"])
def test_every_blocker_is_told_with_its_reason(timing: Timing, tmp_path: Path) -> None:
    servers = (UVICORN, GRANIAN)
    with ThreadPoolExecutor(len(servers)) as threads:  # both at once, since most of it is waiting
        folders = [tmp_path / server.name for server in servers]
        found = threads.map(hang_in_every_way, servers, folders, [timing] * len(servers))
        for server, everything in zip(servers, found, strict=True):
            for seen in everything:
                print(server.name, seen)  # noqa: T201  # the figures, for those who ask for them
                assert seen.after <= timing.stuck + LATE + 0.5
                assert seen.others_age < 2
                assert seen.slowest < 2  # the bar is 0.1 s on a machine that is not busy


def why_py_spy_cannot_look() -> str | None:
    program = spy.find()
    if program is None:
        return "py-spy is not installed"
    code = "import sys; print(flush=True); sys.stdin.read()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], **pipes) as other:
        other.stdout.readline()
        dump = [program, "dump", "--pid", str(other.pid)]
        looked = subprocess.run(dump, capture_output=True, text=True, timeout=30)
        other.stdin.close()
    return looked.stderr.strip() if looked.returncode else None


@pytest.mark.slow
def test_py_spy_shows_the_line_while_the_gil_is_held(tmp_path: Path) -> None:
    if why := why_py_spy_cannot_look():
        pytest.skip(why)
    with pair(UVICORN, tmp_path, SHORT, "--py-spy") as both:
        pid, client = next(iter(both.clients.items()))
        release = both.block(client, "gil")

        def told() -> Any:
            found = both.watcher.json("/workers")["workers"]
            return next(w["py_spy"] for w in found if w["pid"] == pid)

        lines = both.watcher.wait(told, 30, "what py-spy saw")[0]
        assert any("gil" in line and "blockers_app.py" in line for line in lines), lines
        release()
        both.watcher.wait(lambda: not told(), 10, "its end")
