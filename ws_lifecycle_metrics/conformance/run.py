"""Run all scenarios on one server, in as few processes of it as can be trusted."""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..config import environment_name
from .journal import JOURNAL, TARGET, JournalReader
from .play import Player
from .process import Running, StartError, start
from .result import Result, ServerRun
from .script import Scenario
from .servers import ServerKind

SERVED = "ws_lifecycle_metrics.conformance.served:app"
Progress = Callable[[str, str], object]
"""Called with the server's and the scenario's name as each is done."""


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """One server to run, by one interpreter."""

    kind: ServerKind
    version: str
    python: str = sys.executable

    @property
    def name(self) -> str:
        """The name, with the version where it is not the installed one."""
        return self.kind.name


@contextmanager
def serving(chosen: Chosen, target: str = "") -> Iterator[Player]:
    """Run a server for a `with` block; no process of it stays."""
    with tempfile.TemporaryDirectory(prefix="ws-lifecycle-check-") as name:
        folder = Path(name)
        env = {
            JOURNAL: str(folder / "journal"),
            TARGET: target,
            environment_name("directory"): str(folder / "segments"),
            environment_name("policy"): "observe",
        }
        running = start(chosen.kind.command(SERVED, chosen.python), folder, env)
        try:
            yield Player(chosen.name, running, JournalReader(folder / "journal"))
        finally:
            running.stop(timeout=1)


def run_server(
    chosen: Chosen, scenarios: Sequence[Scenario], progress: Progress = lambda *_: None
) -> ServerRun:
    """Play the scenarios on a server; those that may break it, each in a process of its own."""
    began, results = time.monotonic(), dict[str, Result]()
    failed = ""
    try:
        for result in _play_all(chosen, scenarios):
            results[result.scenario] = result
            progress(chosen.name, result.scenario)
    except StartError as error:
        failed = str(error)
    return ServerRun(
        name=chosen.name,
        version=chosen.version,
        results=tuple(results[s.id] for s in scenarios if s.id in results),
        failed=failed,
        seconds=round(time.monotonic() - began, 1),
    )


def _play_all(chosen: Chosen, scenarios: Sequence[Scenario]) -> Iterator[Result]:
    waiting = [scenario for scenario in scenarios if not scenario.fresh]
    while waiting:
        with serving(chosen) as player:
            while waiting:
                yield _play(player, waiting.pop(0))
                if player.running.exited() or not player.running.answers(4.0):
                    break  # what it is now says nothing about the next scenario
    for scenario in scenarios:
        if scenario.fresh:
            with serving(chosen) as player:
                yield _play(player, scenario)


def _play(player: Player, scenario: Scenario) -> Result:
    return asyncio.run(player.play(scenario))


__all__ = ["Chosen", "Progress", "Running", "run_server", "serving"]
