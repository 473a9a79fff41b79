"""The connections that have not ended, one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import compress
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from ..watchdog.gauges import stuck_records
from ..watchdog.sidefile import Stack, Stacks
from . import layout as at
from .reader import Contents
from .series import close_name, graphql_state, live_state

if TYPE_CHECKING:
    from .snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class Connection:
    """One connection that has not ended. Ages are in seconds.

    `state` is "orphaned" where the connection has ended and `subscriptions` of it go on;
    `in_state` is then the time since. `waits_for` is where the application is: "receive", "send"
    or "application". `stuck` is why it is stuck, or empty. `stack` is where it waits, as its
    worker told of late: lines "file:line:function", outermost first; the last one in the user's
    code is `where`.
    `graphql` says how far a connection has come that speaks a GraphQL subprotocol; `close` is
    the code of the close that came first, with its name if it has one.
    """

    worker: str
    pid: int
    id: int
    route: str
    subprotocol: str
    state: str
    age: float
    in_state: float
    silent: float
    waits_for: str
    received_messages: int
    received_bytes: int
    sent_messages: int
    sent_bytes: int
    violations: int
    stuck: str = ""
    where: str = ""
    stack: tuple[str, ...] = ()
    subscriptions: int = 0
    graphql: str = ""
    close: str = ""


@dataclass(frozen=True, slots=True)
class Found:
    """As much of a connection as it takes to sort and to filter; see `Connection`."""

    worker: str
    route: str
    state: str
    stuck: str
    violations: int
    contents: Contents
    record: memoryview


class Ranked:
    """Connections in order, worst first; to make them takes far longer than to find them."""

    def __init__(self, snapshot: Snapshot, found: list[Found]) -> None:
        self._snapshot = snapshot
        self._found = found

    def __len__(self) -> int:
        return len(self._found)

    def __iter__(self) -> Iterator[Found]:
        return iter(self._found)

    def keep(self, wanted: Callable[[Found], bool]) -> Ranked:
        """Return those that are wanted, in the same order."""
        return Ranked(self._snapshot, list(filter(wanted, self._found)))

    def page(self, offset: int = 0, limit: int | None = None) -> list[Connection]:
        """Return at most `limit` connections from the `offset`-th on; None: all of them."""
        end = None if limit is None else offset + limit
        return [_connection(self._snapshot, found) for found in self._found[offset:end]]


STATES = ("orphaned", "closing", "connecting", "open")
"""What `Connection.state` can be, worst first."""
_ORDER = {state: place for place, state in enumerate(STATES)}


def rank(snapshot: Snapshot) -> Ranked:
    """Find all that have not ended or left subscriptions behind.

    Stuck ones come first, then those of stuck workers, then the others; the worst of each first.
    """
    found: list[tuple[tuple[Any, ...], Found]] = []
    for worker in snapshot.workers:
        stuck, label = _stuck(snapshot, worker), slot(worker)
        health = snapshot.healths.get(worker.uuid)
        serves = health is None or health.reason is None
        clock = snapshot.clock(worker)
        for (owner, records), states in zip(worker.records, worker.states(), strict=True):
            route = worker.routes[owner][0]
            for start in compress(range(0, len(records), at.RECORD_WORDS), states):
                record = records[start : start + at.RECORD_WORDS]
                state, serial = live_state(record[at.STATE]), record[at.SERIAL]
                why = stuck.get(serial, "")
                lasts = max(0, clock - record[at.STATE_AT])
                one = Found(label, route, state, why, record[at.VIOLATIONS], worker, record)
                found.append(((not why, serves, _ORDER[state], -lasts, label, serial), one))
    found.sort(key=itemgetter(0))
    return Ranked(snapshot, [one for _, one in found])


def _stuck(snapshot: Snapshot, worker: Contents) -> dict[int, str]:
    """Return why connections of a worker are stuck, by their serial number."""
    health = snapshot.healths.get(worker.uuid)
    if health is None:
        return {}
    return {record[at.SERIAL]: why for _, record, why in stuck_records(worker, health)}


def _connection(snapshot: Snapshot, found: Found) -> Connection:
    worker, record = found.contents, found.record
    opened = record[at.OPENED_AT]
    subprotocol = worker.subprotocols.get(record[at.SUBPROTOCOL] - 1, "")
    told = snapshot.stacks.get(worker.uuid, Stacks()).connections.get(record[at.SERIAL], Stack())
    # A receive() may stay open for good while others send: sending is the narrower place.
    waits = "receive" if record[at.RECEIVING] else "application"
    return Connection(
        worker=found.worker,
        pid=worker.header[at.PID],
        id=record[at.SERIAL],
        route=found.route,
        subprotocol=subprotocol,
        state=found.state,
        age=snapshot.age(worker, opened),
        in_state=snapshot.age(worker, record[at.STATE_AT]),
        silent=snapshot.age(worker, max(opened, record[at.RECEIVED_AT], record[at.SENT_AT])),
        waits_for="send" if record[at.SENDING] else waits,
        received_messages=at.counted(record, *at.RECEIVED),
        received_bytes=at.counted(record, at.RECEIVED_BYTES),
        sent_messages=at.counted(record, *at.SENT),
        sent_bytes=at.counted(record, at.SENT_BYTES),
        violations=found.violations,
        stuck=found.stuck,
        where=told.where,
        stack=told.lines,
        subscriptions=record[at.OPERATIONS],
        graphql=graphql_state(subprotocol, record[at.GRAPHQL]),
        close=close_name(record[at.CLOSE_CODE]),
    )


def slot(worker: Contents) -> str:
    """Return a worker's label."""
    return str(worker.header[at.SLOT])
