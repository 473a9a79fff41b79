"""The harness tells a server that misbehaves, and leaves nothing of it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.servers.harness import SERVERS, Server, eventually, serving, start
from ws_lifecycle_metrics.conformance.process import StartError

UVICORN = next(server for server in SERVERS if server.name == "uvicorn-websockets-sansio")


def test_a_failing_start_shows_what_the_server_printed(tmp_path):
    missing = Server(name="missing", command="uvicorn examples.missing.app:app")
    with pytest.raises(StartError, match=r"No module named 'examples\.missing'"):
        start(missing, tmp_path, {})


def test_a_server_deaf_to_sigterm_is_killed(tmp_path):
    running = start(UVICORN, tmp_path, {})
    os.kill(running.pid, signal.SIGSTOP)
    end = running.stop(timeout=0.2)
    assert end.killed
    assert not running.members()


def test_workers_that_outlive_their_parent_are_reported_and_ended(tmp_path):
    running = start(UVICORN, tmp_path, {})
    workers = running.members()
    os.kill(running.pid, signal.SIGKILL)
    end = running.stop()
    assert end.orphans
    assert set(end.orphans) <= set(workers)
    eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in end.orphans), 5)


def test_a_failure_in_the_block_carries_the_output(tmp_path):
    with pytest.raises(ZeroDivisionError) as caught, serving(UVICORN, tmp_path) as running:
        _ = 1 / 0
    assert "Uvicorn running" in caught.value.__notes__[0]
    assert not running.members()


def test_eventually_names_what_did_not_happen():
    with pytest.raises(AssertionError, match=r"a miracle: not within 0 s, last value 0"):
        eventually(lambda: 0, 0, "a miracle")
