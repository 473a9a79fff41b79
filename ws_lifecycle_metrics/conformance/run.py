"""Run all scenarios on one server, in as few processes of it as can be trusted."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass

from ..config import environment_name
from .application import (
    Approach,
    CannotRun,
    check_first,
    run_trial,
    shared_and_fresh,
)
from .journal import JOURNAL, TARGET, JournalReader
from .leftovers import temporary_folder
from .operation import refusal
from .play import Player
from .process import StartError, start
from .result import Result, ServerRun, label
from .script import Scenario
from .servers import ServerKind
from .trials import PROBE, Trial

SERVED = "ws_lifecycle_metrics.conformance.served:app"
INTERRUPTED = "interrupted, the results are incomplete"


class Stopped(Exception):  # noqa: N818  # the user's wish, not an error
    """The user wants to end."""


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """One server to run, by one interpreter."""

    kind: ServerKind
    version: str
    python: str = sys.executable

    @property
    def name(self) -> str:
        """The server's name, without its version."""
        return self.kind.name

    @property
    def label(self) -> str:
        """What it is called beside others."""
        return label(self.name, self.version)


Progress = Callable[[Chosen, str], object]
"""Called with the server and the scenario's name as each is done; raises `Stopped` to end."""


def silent(_server: Chosen, _scenario: str) -> None:
    """Show no progress."""


@contextmanager
def serving(chosen: Chosen, target: str = "") -> Iterator[Player]:
    """Run a server for a `with` block; no process of it stays."""
    with temporary_folder("ws-lifecycle-check-") as folder:
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
    chosen: Chosen, scenarios: Sequence[Scenario], progress: Progress = silent
) -> ServerRun:
    """Play the scenarios on a server; those that may break it, each in a process of its own."""
    return _collected(chosen, _play_all(chosen, scenarios), [s.id for s in scenarios], progress)


def not_begun(chosen: Chosen) -> ServerRun:
    """Return what there is of a server that an interrupt came before."""
    why = "interrupted before it began"
    return ServerRun(name=chosen.name, version=chosen.version, failed=why, interrupted=True)


def _collected(
    chosen: Chosen, played: Generator[Result], ids: Sequence[str], progress: Progress
) -> ServerRun:
    """Take results until all are there, it cannot go on, or the user wants no more."""
    began, results = time.monotonic(), dict[str, Result]()
    failed, interrupted = "", False
    try:
        with closing(played):  # which ends the server
            for result in played:
                results[result.scenario] = result
                progress(chosen, result.scenario)
    except (StartError, CannotRun) as error:
        failed = str(error)
    except Stopped:
        interrupted = len(results) < len(ids)
        failed = INTERRUPTED if interrupted else ""
    return ServerRun(
        name=chosen.name,
        version=chosen.version,
        results=tuple(results[id] for id in ids if id in results),
        failed=failed,
        interrupted=interrupted,
        seconds=round(time.monotonic() - began, 1),
    )


def _play_all(chosen: Chosen, scenarios: Sequence[Scenario]) -> Generator[Result]:
    waiting = [scenario for scenario in scenarios if not scenario.fresh]
    while waiting:
        with serving(chosen) as player:
            while waiting:
                yield _play(player, waiting.pop(0))
                if player.running.exited() or not player.running.answers(4.0):
                    break  # what it is now says nothing about the next scenario
    for scenario in scenarios:
        if scenario.fresh:
            yield _play_fresh(chosen, scenario)


def _play_fresh(chosen: Chosen, scenario: Scenario) -> Result:
    """Play a scenario in a process of its own, until it shows a fault or has had its tries."""
    for number in range(1, scenario.tries + 1):
        with serving(chosen) as player:
            result = _play(player, scenario)
        if result.findings or result.unsupported or number == scenario.tries:
            break
    return result


def _play(player: Player, scenario: Scenario) -> Result:
    return asyncio.run(player.play(scenario))


def run_application(
    chosen: Chosen,
    target: str,
    trials: Sequence[Trial],
    approach: Approach,
    progress: Progress = silent,
) -> ServerRun:
    """Try an application on a server."""
    played = _try_all(chosen, target, trials, approach)
    return _collected(chosen, played, [trial.id for trial in trials], progress)


def _try_all(
    chosen: Chosen, target: str, trials: Sequence[Trial], approach: Approach
) -> Generator[Result]:
    shared, fresh = shared_and_fresh(trials)
    refused: str | None = None
    with serving(chosen, target) as player:
        if trials and not (shared and shared[0].tells_who_is_taken):
            # What is chosen would not notice that the application takes nobody.
            check_first(asyncio.run(run_trial(player, PROBE, approach)), approach)
        for trial in shared:
            if trial.operation and refused is None:  # one for all: they run the same
                refused = asyncio.run(refusal(player, approach, trial.operation))
            if trial.operation and refused:
                yield _unplayed(chosen, trial, refused)
                continue
            result = asyncio.run(run_trial(player, trial, approach))
            if trial is shared[0] and trial.tells_who_is_taken:
                check_first(result, approach)
            yield result
    for trial in fresh:
        with serving(chosen, target) as player:
            yield asyncio.run(run_trial(player, trial, approach))


def _unplayed(chosen: Chosen, trial: Trial, why: str) -> Result:
    return Result(server=chosen.name, scenario=trial.id, title=trial.sentence, unclear=why)
