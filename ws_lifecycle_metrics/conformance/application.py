"""Application mode: a scripted client tries the user's own application, as clients in the wild do.

Only what the application and the server do counts; the client's demands of server mode don't,
since an application may answer as it likes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..protocol import Party
from .client import Client
from .play import Entries, Player, left_at, server_findings, timeline, unended, waits_for
from .result import Result, is_finding, rule
from .script import FIN, RESET, TERMINATE, Script, Step, do, frame, pause, text

ANSWER_SECONDS = 8.0
"""Seconds for the answer to a handshake, and for another client's request after a trial."""
SETTLE = 6.0
"""Seconds that an application has to end after its client has left."""
SEND_SETTLE = 25.0
"""Further seconds for a send in flight: uvicorn on websockets waits 20 s for a close's answer."""
MOST_MESSAGES = 2_000
"""Messages that a client takes in the short while it listens; more is a flood."""

OPEN, LISTEN = do("try_open"), do("listen")
LEAVE = do("leave", code=1000)


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One thing that clients do; `fresh`: the server does not outlive it."""

    id: str
    title: str
    client: Script
    fresh: bool = False
    at_once: int = 1


def _trial(id: str, title: str, *client: Step, fresh: bool = False, at_once: int = 1) -> Trial:
    return Trial(id=id, title=title, client=client, fresh=fresh, at_once=at_once)


TRIALS: tuple[Trial, ...] = (
    _trial("open-and-close", "opens, and closes with 1000", OPEN, LISTEN, LEAVE),
    _trial("close-at-once", "closes as soon as it is accepted", OPEN, LEAVE),
    _trial("close-1001", "goes away with 1001", OPEN, do("leave", code=1001)),
    _trial("close-empty", "closes without a code", OPEN, do("leave", code=None)),
    _trial("close-4242", "closes with a code of its own", OPEN, do("leave", code=4242)),
    _trial("reset", "vanishes by an RST", OPEN, RESET),
    _trial("end-without-close", "ends without a close frame", OPEN, FIN, pause(0.2)),
    _trial("reset-in-handshake", "gives up during the handshake", do("request"), RESET),
    _trial("silent", "says nothing for 2 seconds, then vanishes", OPEN, pause(2.0), RESET),
    _trial("text", "sends a text", OPEN, text("hello"), LISTEN, LEAVE),
    _trial("binary", "sends bytes", OPEN, do("binary", message=b"\x00\xff"), LISTEN, LEAVE),
    _trial("empty", "sends an empty text", OPEN, text(""), LISTEN, LEAVE),
    _trial("json", "sends a JSON object", OPEN, text('{"type":"hello"}'), LISTEN, LEAVE),
    _trial("json-null", "sends JSON null", OPEN, text("null"), LISTEN, LEAVE),
    _trial("json-list", "sends a JSON list", OPEN, text("[]"), LISTEN, LEAVE),
    _trial("json-broken", "sends broken JSON", OPEN, text('{"type":'), LISTEN, LEAVE),
    _trial("big", "sends a text of 64 KiB", OPEN, text("x" * 65536), LISTEN, LEAVE),
    _trial(
        "burst", "sends 50 texts at once", OPEN, do("burst", messages=("x",) * 50), LISTEN, LEAVE
    ),
    _trial(
        "burst-and-reset", "vanishes after 50 texts", OPEN, do("burst", messages=("x",) * 50), RESET
    ),
    _trial("text-and-reset", "vanishes before the answer", OPEN, text("hello"), RESET),
    _trial("ping", "sends a ping", OPEN, frame(9, b"?"), LISTEN, LEAVE),
    _trial("invalid-utf8", "sends a text that is no UTF-8", OPEN, frame(1, b"\xff"), LISTEN, RESET),
    _trial("at-once", "eight clients at once", OPEN, text("hello"), LISTEN, LEAVE, at_once=8),
    _trial(
        "sigterm", "the server is told to stop", OPEN, LISTEN, TERMINATE, pause(3.0), fresh=True
    ),
)


def _graphql_trials(start: str, stop: str, query: str) -> tuple[Trial, ...]:
    init = text('{"type":"connection_init","payload":{}}')

    def subscribe(document: str, id: str = "1") -> Step:
        import json

        payload = {"id": id, "type": start, "payload": {"query": document}}
        return text(json.dumps(payload))

    query = query or "{ __typename }"
    complete = text(f'{{"id":"1","type":"{stop}"}}')
    return (
        _trial("gql-init", "initialises and leaves", OPEN, init, LISTEN, LEAVE),
        _trial(
            "gql-query", "runs an operation", OPEN, init, LISTEN, subscribe(query), LISTEN, LEAVE
        ),
        _trial(
            "gql-complete",
            "completes it",
            OPEN,
            init,
            LISTEN,
            subscribe(query),
            complete,
            LISTEN,
            LEAVE,
        ),
        _trial("gql-reset", "vanishes during it", OPEN, init, LISTEN, subscribe(query), RESET),
        _trial("gql-no-init", "does not initialise", OPEN, subscribe(query), LISTEN, LEAVE),
        _trial("gql-init-twice", "initialises twice", OPEN, init, init, LISTEN, LEAVE),
        _trial(
            "gql-same-id",
            "uses an id twice",
            OPEN,
            init,
            LISTEN,
            subscribe(query),
            subscribe(query),
            LISTEN,
            LEAVE,
        ),
        _trial(
            "gql-broken", "sends a broken query", OPEN, init, LISTEN, subscribe("{"), LISTEN, LEAVE
        ),
        _trial("gql-junk", "sends no JSON", OPEN, init, LISTEN, text("junk"), LISTEN, LEAVE),
        _trial(
            "gql-unknown",
            "sends an unknown message",
            OPEN,
            init,
            text('{"type":"x"}'),
            LISTEN,
            LEAVE,
        ),
    )


def trials_for(subprotocol: str, query: str = "") -> tuple[Trial, ...]:
    """Return the trials that fit an application of that subprotocol."""
    if subprotocol == "graphql-transport-ws":
        return (*TRIALS, *_graphql_trials("subscribe", "complete", query))
    if subprotocol == "graphql-ws":
        return (*TRIALS, *_graphql_trials("start", "stop", query))
    return TRIALS


class CannotRun(Exception):  # noqa: N818  # the reason why there is no verdict
    """The application cannot be tried; the text says why in one line."""


@dataclass(frozen=True, kw_only=True)
class Approach:
    """How the application is reached."""

    path: str = "/"
    subprotocol: str = ""
    headers: tuple[tuple[str, str], ...] = ()


class ListeningClient(Client):
    """A client that demands nothing: it opens, listens for a while, and leaves."""

    subprotocol: str = ""

    async def do_try_open(self) -> None:
        """Open; a refusal ends the script."""
        offered = (self.subprotocol,) if self.subprotocol else ()
        await self.do_open(-1, subprotocols=offered, within=ANSWER_SECONDS)
        if self.status != 101:
            raise ConnectionRefusedError

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
    clients = [_client(player, run, approach) for run in runs]
    try:
        await asyncio.gather(*(_bounded(player, client, trial) for client in clients))
    finally:
        for client in clients:
            client.over = True
            client.abandon()
    logs = [await _log(player, run) for run in runs]
    exited = player.running.exited()
    pairs = zip(logs, clients, strict=True)
    findings = [id for log, peer in pairs for id in _judge(log, peer, exited)]
    if player.running.exited() and not trial.fresh:
        raise CannotRun(f"the server's process ended during {trial.id!r}: {_last_line(player)}")
    if not trial.fresh and not await asyncio.to_thread(player.running.answers, ANSWER_SECONDS):
        raise CannotRun(f"after {trial.id!r} the server answers nobody: the application blocks it")
    return Result(
        server=player.server,
        scenario=trial.id,
        title=f"the client {trial.title}" if trial.at_once == 1 else trial.title,
        findings=tuple(dict.fromkeys(findings)),
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


def _client(player: Player, run: str, approach: Approach) -> ListeningClient:
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


def _judge(entries: Entries, client: ListeningClient, exited: bool) -> Iterable[str]:
    """Name the rules that either party broke, silence included."""
    yield from (
        id
        for entry in entries
        for id in entry["rules"]
        if rule(id).party is Party.APP and is_finding(id)
    )
    yield from server_findings(entries, left_at(client.seen))
    yield from (seen.rule for seen in client.seen if seen.rule == "server.illegal-frame")
    unanswered = any(seen.rule == "server.handshake-unanswered" for seen in client.seen)
    if unanswered:
        answered = any(entry["what"] == "sent" for entry in entries)
        yield "server.handshake-unanswered" if answered else "app.handshake-unanswered"
    if entries and unended(entries) and not unanswered:
        yield from _who_waits(entries, exited)


def _who_waits(entries: Entries, exited: bool) -> Iterable[str]:
    """Name who keeps an application from ending whose client is gone."""
    waits = waits_for(entries)
    told = any(
        entry["what"] == "received" and entry["event"] == "websocket.disconnect"
        for entry in entries
    )
    if waits == "send":
        yield "server.send-never-returns"
    elif waits == "receive" and not told:
        yield "server.disconnect-not-delivered"
    elif not exited:  # else it was told, and ended with its process
        yield "app.never-ends"


def check_first(result: Result, approach: Approach) -> None:
    """Raise `CannotRun` if the first trial shows that no other can tell anything."""
    texts = [line.text for line in result.timeline if line.side == "client"]
    answer = next((t for t in texts if t.startswith("answer ")), "")
    raised = any(line.text.startswith("raised") for line in result.timeline)
    if "app.handshake-unanswered" in result.findings:
        raise CannotRun(f"the application did not answer the handshake on {approach.path} in time")
    if answer and answer != "answer 101":
        why = "after an exception of the application's" if raised else "is --path right?"
        raise CannotRun(f"{approach.path} was refused ({answer.partition(' ')[2]}); {why}")


def shared_and_fresh(trials: Sequence[Trial]) -> tuple[list[Trial], list[Trial]]:
    """Split trials into those that share a process and those that end it."""
    return [t for t in trials if not t.fresh], [t for t in trials if t.fresh]
