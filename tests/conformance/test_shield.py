"""The policy `shield` on real servers: what raises without it does not raise with it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.conformance.shielded import SCRIPTS
from tests.servers.scrape import scrape, total
from ws_lifecycle_metrics.conformance.client import Client, Hooks, Unmet
from ws_lifecycle_metrics.conformance.process import HOST, Running, poll, start
from ws_lifecycle_metrics.conformance.servers import BY_NAME

if TYPE_CHECKING:
    from collections.abc import Mapping

FRAGILE = {
    "uvicorn-websockets-sansio": {"/after-close", "/close-twice", "/after-disconnect"},
    "hypercorn": {"/after-close"},
    "daphne": {"/after-close"},
    "gunicorn": {"/after-close"},
}
"""What raises out of the application where nothing shields it."""


async def visit(running: Running, path: str) -> None:
    hooks = Hooks(lambda: asyncio.to_thread(running.answers), running.terminate, running.exited)
    client = Client(HOST, running.port, path, "shield", hooks)
    try:
        await client.do_open(-1)
        if client.status == 101:
            if path == "/after-disconnect":
                await client.do_close(1000)
            else:
                await client.do_over()
    except Unmet as unmet:
        pytest.fail(str(unmet))
    finally:
        client.abandon()


def outcomes(server: str, policy: str, folder: Path) -> tuple[Mapping[str, str], float]:
    """Run every script under a policy; return how each ended, and how many sends were dropped."""
    folder.mkdir()
    record = folder / "outcomes"
    env = {
        "SHIELD_OUTCOME": str(record),
        "WS_LIFECYCLE_POLICY": policy,
        "WS_LIFECYCLE_SERVICE": "test",
        "WS_LIFECYCLE_DIRECTORY": str(folder / "segments"),
    }
    command = BY_NAME[server].command("tests.conformance.shielded:app")
    running = start(command, folder, env)
    try:
        for path in SCRIPTS:
            asyncio.run(visit(running, path))
        poll(lambda: record.exists() and len(record.read_text().splitlines()) == len(SCRIPTS), 10)
        dropped = total(scrape(folder / "segments"), "websocket_server_shielded_sends_total")
    finally:
        running.stop(timeout=3)
    lines = record.read_text().splitlines()
    return dict(line.split(" ", 1) for line in lines), dropped


@pytest.mark.parametrize(
    "server",
    [
        "uvicorn-websockets-sansio",
        *(pytest.param(name, marks=pytest.mark.slow) for name in FRAGILE if name[:3] != "uvi"),
    ],
)
def test_what_raises_unshielded_returns_shielded(server: str, tmp_path: Path) -> None:
    bare, none = outcomes(server, "observe", tmp_path / "observe")
    assert none == 0
    assert {path for path, how in bare.items() if how != "returned"} >= FRAGILE[server]
    shielded, dropped = outcomes(server, "shield", tmp_path / "shield")
    assert set(shielded.values()) == {"returned"}
    assert dropped == 6  # three after the close, one close, one after the disconnect, one accept
