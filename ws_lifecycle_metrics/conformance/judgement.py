"""Who broke what in one trial of an application: from what its side and the client's side saw."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence

from ..protocol import Party
from .connection import Seen
from .play import ENDS, Entries, left_at, server_findings, unended, waits_for
from .result import Result, is_finding, rule

ON_ITS_WAY = 0.5
"""Seconds that a server may need from the application's answer to the client's."""
_ANSWERS = frozenset(
    {"websocket.accept", "websocket.close", "websocket.http.response.start"},
)
_STATUS = re.compile(r"answer (\d+|none)")


def judge(entries: Entries, seen: Sequence[Seen], exited: bool) -> Iterable[str]:
    """Name the rules that either party broke, silence included; `exited`: the server has."""
    yield from (
        id
        for entry in entries
        for id in entry["rules"]
        if rule(id).party is Party.APP and is_finding(id)
    )
    yield from server_findings(entries, left_at(seen))
    yield from (line.rule for line in seen if line.rule == "server.illegal-frame")
    unanswered = any(line.rule == "server.handshake-unanswered" for line in seen)
    if unanswered:
        answered = answered_at(entries) < given_up_at(seen) - ON_ITS_WAY
        yield "server.handshake-unanswered" if answered else "app.handshake-unanswered"
    elif entries and _ended_for_it(entries, seen):
        yield "app.handshake-unanswered"
    if entries and unended(entries) and not unanswered:
        yield from _who_waits(entries, exited)


def answered_at(entries: Entries) -> float:
    """Return when the application's answer to the handshake was taken; infinity: it gave none."""
    answers = (e["at"] for e in entries if e["what"] == "sent" and e["event"] in _ANSWERS)
    return min(answers, default=math.inf)


def given_up_at(seen: Iterable[Seen]) -> float:
    """Return when the client no longer waited for the answer to its handshake."""
    return min(line.at for line in seen if line.rule == "server.handshake-unanswered")


def _ended_for_it(entries: Entries, seen: Iterable[Seen]) -> bool:
    """Tell if a server lost its patience with an application that had neither answered nor ended.

    Daphne does so after 5 seconds, before the client would.
    """
    lost = [line.at for line in seen if line.what == "answer none"]
    told = [entry["at"] for entry in entries if entry["event"] == "websocket.disconnect"]
    done = [entry["at"] for entry in entries if entry["what"] in (*ENDS, "send")]
    # It may be told, and end, a moment before the client sees it.
    return bool(lost) and min(done, default=math.inf) > min([*lost, *told])


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


def refused_with(texts: Iterable[str]) -> str:
    """Return the status of a refusal from what the client saw, "none" if it got none, or ""."""
    found = (match[1] for text in texts if (match := _STATUS.fullmatch(text)))
    return next((status for status in found if status != "101"), "")


def not_reached(result: Result, path: str) -> str:
    """Return why a first trial shows that no other can tell anything, or nothing."""
    if "app.handshake-unanswered" in result.findings:
        return f"the application did not answer the handshake on {path} in time"
    status = refused_with(line.text for line in result.timeline if line.side == "client")
    if not status:
        return ""
    broken = (rule(id) for id in result.findings)
    why = next((f"{it.id}: {it.meaning}" for it in broken if it.party is Party.APP), "")
    return f"{path} was refused ({status}); {why or 'is --path right?'}"
