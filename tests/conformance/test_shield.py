"""The policy `shield` on real servers: what raises or hangs without it does neither with it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.conformance.shielded import SCRIPTS
from tests.servers.harness import ROOT
from tests.servers.scrape import scrape, total
from ws_lifecycle_metrics.conformance.client import Client, Hooks, Unmet
from ws_lifecycle_metrics.conformance.process import HOST, Running, poll, start
from ws_lifecycle_metrics.conformance.servers import BY_NAME
from ws_lifecycle_metrics.conformance.venvs import environment

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ws_lifecycle_metrics.conformance.process import Command

RAISES, HANGS, RETURNS = "raises", "hangs", "-"
FRAGILE = {
    "uvicorn-websockets": (RAISES,) * 6,
    "uvicorn-websockets-sansio": (RAISES, RAISES, RAISES, RETURNS, RAISES, RAISES),
    "uvicorn-wsproto": (RAISES,) * 6,
    "granian": (RETURNS,) * 6,
    "granian==2.7.0": (RAISES, RETURNS, RETURNS, RETURNS, RETURNS, HANGS),
    "hypercorn": (RAISES, RETURNS, RETURNS, RETURNS, RAISES, RETURNS),
    "daphne": (RAISES, RETURNS, RETURNS, RETURNS, RETURNS, RETURNS),
    "gunicorn": (RAISES, RETURNS, RAISES, RETURNS, RETURNS, RAISES),
}
"""What each script does, in their order, where nothing shields the server."""
QUICK = "uvicorn-websockets-sansio"
DOCUMENT = ROOT / "docs" / "shield.md"
DROPPED = 9  # three after the first close, and one of each other script, but two of the last


async def visit(running: Running, path: str) -> None:
    hooks = Hooks(lambda: asyncio.to_thread(running.answers), running.terminate, running.exited)
    client = Client(HOST, running.port, path, "shield", hooks)
    try:
        await client.do_open(-1)
        if client.status == 101:
            if path.endswith("after-disconnect"):
                await client.do_close(1000)
            else:
                await client.do_over()
    except Unmet as unmet:
        pytest.fail(str(unmet))
    finally:
        client.abandon()


def command(server: str) -> Command:
    """How to start a server; with a version, from an environment of its own."""
    kind = BY_NAME[server.partition("==")[0]]
    target = ("tests.conformance.shielded:app",)
    return kind.command(*target, *([environment([server])] if "==" in server else []), cwd=ROOT)


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
    running = start(command(server), folder, env)
    try:
        for path in SCRIPTS:
            asyncio.run(visit(running, path))
        poll(lambda: record.exists() and len(record.read_text().splitlines()) == len(SCRIPTS), 10)
        dropped = total(scrape(folder / "segments"), "websocket_server_shielded_sends_total")
    finally:
        running.stop(timeout=3)
    lines = record.read_text().splitlines()
    return dict(line.split(" ", 1) for line in lines), dropped


WORDS = {"raised": RAISES, "hung": HANGS, "returned": RETURNS}


@pytest.mark.parametrize(
    "server",
    [QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in FRAGILE if name != QUICK)],
)
def test_what_raises_or_hangs_unshielded_returns_shielded(server: str, tmp_path: Path) -> None:
    bare, none = outcomes(server, "observe", tmp_path / "observe")
    assert none == 0
    seen = tuple(WORDS[bare[path].split()[0]] for path in SCRIPTS)
    assert seen == FRAGILE[server], bare
    shielded, dropped = outcomes(server, "shield", tmp_path / "shield")
    assert set(shielded.values()) == {"returned"}
    assert dropped == DROPPED


def test_the_document_says_what_was_seen() -> None:
    rows = [
        [cell.strip().strip("`") for cell in line.strip("|").split("|")]
        for line in DOCUMENT.read_text().splitlines()
        if line.startswith("| ") and line.count("|") == len(SCRIPTS) + 2
    ]
    assert {server: tuple(cells) for server, *cells in rows[1:]} == FRAGILE
