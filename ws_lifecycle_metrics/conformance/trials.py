"""What clients in the wild do, as trials of an application; GraphQL's where it speaks that."""

from __future__ import annotations

import json
from dataclasses import dataclass

from .script import FIN, RESET, TERMINATE, Script, Step, do, frame, pause, text

OPEN, LISTEN = do("try_open"), do("listen")
LEAVE = do("leave", code=1000)
OPERATION_ID = "1"


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One thing that clients do; `fresh`: the server does not outlive it.

    `operation`: the GraphQL operation that the application has to take, or the trial tells nothing.
    """

    id: str
    title: str
    client: Script
    fresh: bool = False
    at_once: int = 1
    operation: Step | None = None

    @property
    def sentence(self) -> str:
        """What is reported as the trial's title."""
        return f"the client {self.title}" if self.at_once == 1 else self.title

    @property
    def tells_who_is_taken(self) -> bool:
        """Whether its refusal means that all are: of many at once, some may be refused."""
        return OPEN in self.client and self.at_once == 1


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
        "sigterm",
        "stays until the server is told to stop",
        *(OPEN, LISTEN, TERMINATE, pause(3.0)),
        fresh=True,
    ),
)

PROBE = _trial("first-handshake", "opens and leaves, before all trials", OPEN, LEAVE)

INIT = text('{"type":"connection_init","payload":{}}')


def _graphql_trials(start: str, stop: str, query: str) -> tuple[Trial, ...]:
    payload = {"query": query or "{ __typename }"}
    begin = text(json.dumps({"id": OPERATION_ID, "type": start, "payload": payload}))
    broken = text(json.dumps({"id": OPERATION_ID, "type": start, "payload": {"query": "{"}}))
    complete = text(json.dumps({"id": OPERATION_ID, "type": stop}))
    ready = (OPEN, INIT, LISTEN)
    end = (LISTEN, LEAVE)

    def needs_it(id: str, title: str, *client: Step) -> Trial:
        return Trial(id=id, title=title, client=client, operation=begin)

    return (
        _trial("gql-init", "initialises and leaves", *ready, LEAVE),
        needs_it("gql-query", "runs an operation", *ready, begin, *end),
        needs_it("gql-complete", "completes it", *ready, begin, complete, *end),
        needs_it("gql-reset", "vanishes during it", *ready, begin, RESET),
        _trial("gql-no-init", "does not initialise", OPEN, begin, *end),
        _trial("gql-init-twice", "initialises twice", OPEN, INIT, INIT, *end),
        _trial("gql-same-id", "uses an id twice", *ready, begin, begin, *end),
        _trial("gql-broken", "sends a broken query", *ready, broken, *end),
        _trial("gql-junk", "sends no JSON", *ready, text("junk"), *end),
        _trial("gql-unknown", "sends an unknown message", OPEN, INIT, text('{"type":"x"}'), *end),
    )


GRAPHQL = {
    "graphql-transport-ws": ("subscribe", "complete"),
    "graphql-ws": ("start", "stop"),
}
"""GraphQL's subprotocols, with what begins an operation and what ends it."""


def trials_for(subprotocol: str, query: str = "") -> tuple[Trial, ...]:
    """Return the trials that fit an application of that subprotocol."""
    if subprotocol not in GRAPHQL:
        return TRIALS
    return (*TRIALS, *_graphql_trials(*GRAPHQL[subprotocol], query))
