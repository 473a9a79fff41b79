"""Application mode: a scripted client tries the user's own application, as clients in the wild do.

Only what the application and the server do counts; the client's demands of server mode don't,
since an application may answer as it likes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from .client import Client
from .frames import Frame
from .judgement import judge, not_reached
from .play import Entries, Player, timeline, unended, waits_for
from .result import Result
from .script import Script
from .trials import Trial

ANSWER_SECONDS = 8.0
"""Seconds for the answer to a handshake, and for another client's request after a trial."""
SETTLE = 6.0
"""Seconds that an application has to end after its client has left."""
SEND_SETTLE = 25.0
"""Further seconds for a send in flight: uvicorn on websockets waits 20 s for a close's answer."""
MOST_MESSAGES = 2_000
"""Messages that a client takes in the short while it listens; more is a flood."""


class CannotRun(Exception):  # noqa: N818  # the reason why there is no verdict
    """The application cannot be tried; the text says why in one line."""


class HandshakeRefused(Exception):  # noqa: N818  # no error of the client
    """The rest of a client's script would tell nothing."""


@dataclass(frozen=True, kw_only=True)
class Approach:
    """How the application is reached."""

    path: str = "/"
    subprotocol: str = ""
    headers: tuple[tuple[str, str], ...] = ()


class ListeningClient(Client):
    """A client that demands nothing: it opens, listens for a while, and leaves."""

    subprotocol: str = ""
    refused: str = ""

    async def play(self, script: Script) -> None:
        """Play the steps until a refusal, which is the application's right."""
        with suppress(HandshakeRefused):
            await super().play(script)

    async def do_try_open(self) -> None:
        """Open; a refusal ends the script."""
        offered = (self.subprotocol,) if self.subprotocol else ()
        await self.do_open(-1, subprotocols=offered, within=ANSWER_SECONDS)
        if self.status != 101:
            self.refused = str(self.status or "no answer")
            raise HandshakeRefused

    async def do_listen(self, seconds: float = 0.4) -> None:
        """Take what comes for a short while."""
        try:
            async with asyncio.timeout(seconds):
                for _ in range(MOST_MESSAGES):
                    if await self._message() is None:
                        return
                raise CannotRun(
                    f"the application floods: more than {MOST_MESSAGES:,} messages in {seconds} s"
                )
        except TimeoutError:
            return

    async def next_message(self) -> str | bytes | Frame | None:
        """Return the next message, the close frame, or None at the end."""
        return await self._message()

    async def do_leave(self, code: int | None) -> None:
        """Close, and give the server time to answer."""
        if not self.over:
            await self.do_close(code)
        self.over = True
        self.abandon()


async def run_trial(player: Player, trial: Trial, approach: Approach) -> Result:
    """Play one trial, on as many connections at once as it says."""
    began = time.monotonic()
    runs = [player.next_run(trial.id) for _ in range(trial.at_once)]
    clients = [client_of(player, run, approach) for run in runs]
    try:
        await asyncio.gather(*(_bounded(player, client, trial) for client in clients))
    finally:
        for client in clients:
            client.over = True
            client.abandon()
    logs = [await _log(player, run) for run in runs]
    exited = player.running.exited()
    pairs = zip(logs, clients, strict=True)
    findings = [id for log, peer in pairs for id in judge(log, peer.seen, exited)]
    refused = {client.refused for client in clients}
    # Some of many may be refused: an application may have a limit. All: nothing was tried.
    untried = not findings and all(refused)
    if player.running.exited() and not trial.fresh:
        raise CannotRun(f"the server's process ended during {trial.id!r}: {_last_line(player)}")
    if not trial.fresh and not await asyncio.to_thread(player.running.answers, ANSWER_SECONDS):
        raise CannotRun(f"after {trial.id!r} the server answers nobody: the application blocks it")
    return Result(
        server=player.server,
        scenario=trial.id,
        title=trial.sentence,
        findings=tuple(dict.fromkeys(findings)),
        unclear=f"the handshake was refused ({', '.join(sorted(refused))})" if untried else "",
        timeline=timeline(
            began, [e for log in logs for e in log], [s for c in clients for s in c.seen]
        ),
        seconds=round(time.monotonic() - began, 2),
    )


async def _log(player: Player, run: str) -> Entries:
    """Return what an application did; a send may last as long as the server's own time-outs."""
    entries = await player.ended(run, SETTLE)
    if unended(entries) and waits_for(entries) == "send":
        entries = await player.ended(run, SEND_SETTLE)
    return entries


def client_of(player: Player, run: str, approach: Approach) -> ListeningClient:
    """Return a client that reaches the application."""
    plain = player.client(approach.path, run, approach.headers)
    client = ListeningClient(plain.host, plain.port, plain.path, run, plain.hooks, approach.headers)
    client.subprotocol = approach.subprotocol
    return client


async def _bounded(player: Player, client: ListeningClient, trial: Trial) -> None:
    unclear = await player.bounded(client, trial.client, 30.0)
    if unclear:
        raise CannotRun(unclear)


def _last_line(player: Player) -> str:
    lines = [line for line in player.running.output().splitlines() if line.strip()]
    return lines[-1].strip()[:200] if lines else "it printed nothing"


def check_first(result: Result, approach: Approach) -> None:
    """Raise `CannotRun` if the first trial shows that no other can tell anything."""
    if why := not_reached(result, approach.path):
        raise CannotRun(why)


def shared_and_fresh(trials: Sequence[Trial]) -> tuple[list[Trial], list[Trial]]:
    """Split trials into those that share a process and those that end it."""
    return [t for t in trials if not t.fresh], [t for t in trials if t.fresh]
