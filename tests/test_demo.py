"""`make demo` as a person runs it: it shows the faults, ends when asked to, and leaves nothing."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.servers.harness import ROOT, eventually

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
        left = session(process.pid)
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    assert not left, "processes of the demo are left"
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
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    table = rows(output)
    assert table["route"][:2] == ["open", "closing"]
    assert table["/never-returns"][:2] == ["0", "1"]
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
