"""Beside Linux: numbers stay in each process, and nobody is told more than one line of it."""

from __future__ import annotations

import signal
import urllib.request
from typing import TYPE_CHECKING

import pytest

from tests.other_system import run, start

if TYPE_CHECKING:
    from pathlib import Path

UNSUPPORTED = "this system has no file locks or no posix_fallocate"
APPLICATION = """
import asyncio
from tests.conformance.apps import echo
from ws_lifecycle_metrics import LifecycleMiddleware, metrics_app
from ws_lifecycle_metrics.testing import websocket

async def main():
    async with websocket(LifecycleMiddleware(echo)) as client:
        await client.send("hi")
        assert await client.receive() == "hi"
    answers = []
    async def send(message):
        answers.append(message)
    await metrics_app()({"type": "http", "method": "GET", "path": "/", "headers": []}, None, send)
    print(answers[1]["body"].decode())

asyncio.run(main())
"""
VERB = """
import sys
from ws_lifecycle_metrics.cli import cli
cli(sys.argv[1:], prog_name="ws-lifecycle-metrics")
"""

systems = pytest.mark.parametrize("system", ["macos", "windows"])


@systems
def test_a_worker_shows_its_own_numbers(system: str, tmp_path: Path) -> None:
    code, output = run(system, APPLICATION, tmp_path)
    assert code == 0, output
    warned, *shown = output.splitlines()
    assert warned == f"metrics stay in this process, no other can read them: {UNSUPPORTED}"
    sent = 'websocket_server_sent_messages_total{http_route="other",opcode="text"} 1.0'
    degraded = "ws_lifecycle_metrics_storage_degraded 1.0"
    faults = "ws_lifecycle_metrics_internal_errors_total 0.0"
    assert {sent, degraded, faults, "asgi_workers_reporting 1.0"} <= set(shown)
    assert not any(tmp_path.iterdir())


@systems
def test_connections_says_why_it_knows_of_none(system: str, tmp_path: Path) -> None:
    said = f"Error: the directory of segments cannot be used: {UNSUPPORTED}\n"
    assert run(system, VERB, tmp_path, "connections") == (2, said)


@systems
def test_the_doctor_finds_no_fault_in_it(system: str, tmp_path: Path) -> None:
    _, output = run(system, VERB, tmp_path, "doctor")
    assert f"note     directory: {UNSUPPORTED}\n" in output
    assert "could not be looked at" not in output
    assert not {"error", "Traceback"} & {line.partition(" ")[0] for line in output.splitlines()}


@systems
def test_the_sidecar_says_that_it_has_nothing_to_read(system: str, tmp_path: Path) -> None:
    with start(system, VERB, tmp_path, "serve", "--port", "0") as process:
        try:
            assert process.stdout is not None
            address = process.stdout.readline().partition(" serves ")[2].partition(" for ")[0]
            with urllib.request.urlopen(address, timeout=20) as answer:
                assert b"ws_lifecycle_metrics_storage_degraded 1.0" in answer.read()
            process.send_signal(signal.SIGINT)
            said, _ = process.communicate(timeout=20)
        finally:
            process.kill()
    assert f"no shared segments are read: {UNSUPPORTED}" in said
    assert "Traceback" not in said
    assert process.returncode == 0


def test_check_is_refused_where_no_server_could_be_ended(tmp_path: Path) -> None:
    said = "Error: check needs a system with process groups, such as Linux or macOS\n"
    assert run("windows", VERB, tmp_path, "check") == (2, said)


@pytest.mark.slow
def test_check_runs_where_there_is_no_proc(tmp_path: Path) -> None:
    flags = ("--server", "uvicorn-websockets-sansio", "--scenario", "text")
    code, output = run("macos", VERB, tmp_path, "check", "tests.conformance.apps:echo", *flags)
    assert (code, output.splitlines()[-1]) == (0, "clean"), output
