"""The connections that have not ended, one by one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

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


def list_connections(snapshot: Snapshot) -> list[Connection]:
    """Return all that have not ended or left subscriptions behind: stuck ones, then the worst."""
    stuck = {
        (worker.uuid, record[at.SERIAL]): reason
        for worker in snapshot.workers
        if (health := snapshot.healths.get(worker.uuid)) is not None
        for _, record, reason in stuck_records(worker, health)
    }
    found = [
        _connection(snapshot, worker, owner, records[i : i + at.RECORD_WORDS], stuck)
        for worker in snapshot.workers
        for owner, records in worker.records
        for i in range(0, len(records), at.RECORD_WORDS)
        if records[i + at.STATE]
    ]
    order = {"orphaned": 0, "closing": 1, "connecting": 2, "open": 3}
    return sorted(found, key=lambda c: (not c.stuck, order[c.state], -c.in_state, c.worker, c.id))


def _connection(
    snapshot: Snapshot,
    worker: Contents,
    owner: int,
    record: memoryview,
    stuck: dict[tuple[int, int], str],
) -> Connection:
    opened = record[at.OPENED_AT]
    subprotocol = worker.subprotocols.get(record[at.SUBPROTOCOL] - 1, "")
    told = snapshot.stacks.get(worker.uuid, Stacks()).connections.get(record[at.SERIAL], Stack())
    # A receive() may stay open for good while others send: sending is the narrower place.
    waits = "receive" if record[at.RECEIVING] else "application"
    return Connection(
        worker=slot(worker),
        pid=worker.header[at.PID],
        id=record[at.SERIAL],
        route=worker.routes[owner][0],
        subprotocol=subprotocol,
        state=live_state(record[at.STATE]),
        age=snapshot.age(worker, opened),
        in_state=snapshot.age(worker, record[at.STATE_AT]),
        silent=snapshot.age(worker, max(opened, record[at.RECEIVED_AT], record[at.SENT_AT])),
        waits_for="send" if record[at.SENDING] else waits,
        received_messages=at.counted(record, *at.RECEIVED),
        received_bytes=at.counted(record, at.RECEIVED_BYTES),
        sent_messages=at.counted(record, *at.SENT),
        sent_bytes=at.counted(record, at.SENT_BYTES),
        violations=record[at.VIOLATIONS],
        stuck=stuck.get((worker.uuid, record[at.SERIAL]), ""),
        where=told.where,
        stack=told.lines,
        subscriptions=record[at.OPERATIONS],
        graphql=graphql_state(subprotocol, record[at.GRAPHQL]),
        close=close_name(record[at.CLOSE_CODE]),
    )


def slot(worker: Contents) -> str:
    """Return a worker's label."""
    return str(worker.header[at.SLOT])
