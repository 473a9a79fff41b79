"""Play one scenario against a running server, and judge what both sides saw."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterable
from typing import Any

from ..protocol import Party
from .client import Client, Hooks, Seen
from .journal import JournalReader
from .process import HOST, Running
from .result import Line, Result, is_finding, rule
from .script import Scenario, Script

ENDS = ("returned", "raised", "cancelled")
Entries = list[dict[str, Any]]


class Player:
    """Plays scenarios on one running server, whose journal it reads."""

    def __init__(self, server: str, running: Running, journal: JournalReader) -> None:
        self.server, self.running, self._journal = server, running, journal
        self._number = 0

    def client(self, path: str, run: str, headers: tuple[tuple[str, str], ...] = ()) -> Client:
        """Return a client that can also ask about the server."""
        hooks = Hooks(self._answers, self.running.terminate, self.running.exited)
        return Client(HOST, self.running.port, path, run, hooks, headers)

    async def _answers(self) -> bool:
        return await asyncio.to_thread(self.running.answers, 4.0)

    def next_run(self, id: str) -> str:
        """Return a name for a run that none had before."""
        self._number += 1
        return f"{id}-{self._number}"

    async def play(self, scenario: Scenario) -> Result:
        """Play one scenario to its end, or to its time-out, and judge the server."""
        run, began = self.next_run(scenario.id), time.monotonic()
        client = self.client(f"/run/{scenario.id}", run)
        unclear = await self.bounded(client, scenario.client, scenario.timeout)
        entries = await self.ended(run, scenario.settle)
        findings = [*wire_findings(client.seen), *server_findings(entries, left_at(client.seen))]
        findings += self._end_findings(entries, client)
        client.abandon()
        findings += await self._health(client)
        ended = not unended(entries) or self.running.exited()
        if entries and not unclear and not findings and not ended:
            unclear = "the application had not ended"
        unsupported = any(entry["what"] == "unsupported" for entry in entries)
        return Result(
            server=self.server,
            scenario=scenario.id,
            title=scenario.title,
            findings=() if unsupported else tuple(dict.fromkeys(findings)),
            timeline=timeline(began, entries, client.seen),
            unsupported=unsupported,
            unclear=unclear,
            seconds=round(time.monotonic() - began, 2),
        )

    async def bounded(self, client: Client, script: Script, seconds: float) -> str:
        """Play a client's script; return why it could not be, or nothing."""
        try:
            async with asyncio.timeout(seconds):
                await client.play(script)
        except TimeoutError:
            return f"the client's script took longer than {seconds:g} s"
        except OSError as error:
            return f"the client could not connect: {error}"
        return ""

    async def ended(self, run: str, within: float) -> Entries:
        """Wait until the application of a run has ended, if it ever began."""
        deadline = time.monotonic() + within
        while time.monotonic() < deadline:
            entries = self._journal.read(run)
            if not unended(entries) and (entries or self.running.exited()):
                break
            await asyncio.sleep(0.02)
        return self._journal.read(run)

    def _end_findings(self, entries: Entries, client: Client) -> Iterable[str]:
        """Blame the server for a call that it does not answer although all is over."""
        if not entries or not unended(entries):
            return
        told_to_stop = any("SIGTERM" in seen.what for seen in client.seen)
        if self.running.exited() and not told_to_stop:
            return  # it died, which is a finding of its own
        gone = client.over or refused_by_app(entries) or told_to_stop
        waits = waits_for(entries)
        if waits == "send":
            yield "server.send-never-returns"
        elif waits == "receive" and gone:
            yield "server.disconnect-not-delivered"

    async def _health(self, client: Client) -> Iterable[str]:
        if any("SIGTERM" in seen.what for seen in client.seen):
            return ()
        if self.running.exited():
            return ("server.worker-died",)
        return () if await self._answers() else ("server.worker-frozen",)


def unended(entries: Entries) -> bool:
    """Tell if the application runs, as far as its journal says."""
    return not any(entry["what"] in ENDS for entry in entries)


def refused_by_app(entries: Entries) -> bool:
    """Tell if the application has closed, rejected or denied."""
    return any(
        entry["what"] == "sent"
        and entry["event"] in ("websocket.close", "websocket.http.response.body")
        for entry in entries
    )


def waits_for(entries: Entries) -> str:
    """Return the call that has not come back: "send", "receive", or nothing."""
    count: Callable[..., int] = lambda *whats: sum(e["what"] in whats for e in entries)  # noqa: E731  # a word
    if count("send") > count("sent", "send raised"):
        return "send"
    if count("receive") > count("received", "receive raised"):
        return "receive"
    return ""


def wire_findings(seen: Iterable[Seen]) -> list[str]:
    """Return the rules that the client saw broken."""
    return [line.rule for line in seen if line.rule]


def left_at(seen: Iterable[Seen]) -> float:
    """Return when the client left, by its own doing; infinity if it did not."""
    return min((line.at for line in seen if line.what in ("RST", "FIN")), default=math.inf)


_NEEDS_CLIENT = ("server.accept-failed", "server.send-failed", "server.close-failed")


def server_findings(entries: Entries, left: float = math.inf) -> list[str]:
    """Return the server's rules that the application's side saw broken.

    The application's side cannot know that the client had `left`: then a failure is legal, and
    only the kind of its exception is not what it should be.
    """
    found = [
        id
        for entry in entries
        for id in entry["rules"]
        if rule(id).party is Party.SERVER
        and is_finding(id)
        and not (id in _NEEDS_CLIENT and entry["at"] > left)
    ]
    told = False
    for entry in entries:
        # Nothing is specified after the disconnect, nor for two calls at once.
        told = told or entry["event"] == "websocket.disconnect"
        told = told or "app.receive-concurrent" in entry["rules"]
        cancelled = entry["detail"].get("error") == "CancelledError"
        if entry["what"] == "receive raised" and not told and not cancelled:
            found.append("server.receive-raised")
    return found


def timeline(began: float, entries: Entries, seen: Iterable[Seen]) -> tuple[Line, ...]:
    """Merge both sides by time: the monotonic clock is the same in all processes of a host."""
    lines = [Line(s.at - began, "client", s.what, (s.rule,) if s.rule else ()) for s in seen]
    lines += [
        Line(entry["at"] - began, "app", _describe(entry), tuple(entry["rules"]))
        for entry in entries
    ]
    return tuple(sorted(lines, key=lambda line: line.at))


def _describe(entry: dict[str, Any]) -> str:
    detail = " ".join(f"{key}={value}" for key, value in entry["detail"].items())
    return " ".join(part for part in (entry["what"], entry["event"], detail) if part)
