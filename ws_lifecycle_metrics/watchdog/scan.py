"""Find the stuck connections of one's own worker, once a stay, and see where they wait."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from .. import catalog
from ..labels import TraceIds
from ..store import layout as at
from ..store.layout import NS, ROUTE_BLOCK
from ..store.worker import Worker
from . import stuck
from .sidefile import MOST_CONNECTIONS, Stack
from .stacks import chain
from .stuck import StuckEvent

_DETECTIONS = ROUTE_BLOCK[catalog.STUCK_DETECTIONS.name].offsets
TOLD_EVERY = 5 * NS
"""Time between two looks at where connections wait that are not stuck."""


class Watched(Protocol):
    """A conversation, or what is left of it, as the watchdog sees it."""

    @property
    def awaitable(self) -> Any:
        """What the application returned and the middleware awaits, or a subscription's task."""

    def found_stuck(self, reason: str) -> TraceIds | None:
        """Note that it was found stuck; return trace id and span id, if it is traced."""


@dataclass(slots=True)
class Findings:
    """What one scan found: new detections, and where connections wait if that was looked at."""

    events: list[StuckEvent] = field(default_factory=list)
    connections: dict[int, Stack] | None = None


class Scanner:
    """Scans a worker's records; on its own thread, since it counts what it finds."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._stays: set[tuple[int, str]] = set()
        self._told_at = 0

    def scan(self, now: int) -> Findings:
        """Count and return what became stuck since the scan before; `now` in ns."""
        findings = Findings()
        stays: dict[tuple[int, str], tuple[str, memoryview]] = {}
        header, routes = self._worker.segment.header, self._worker.routes()
        for number, records in self._worker.record_blocks:
            route = routes[number]
            for record, reason in stuck.find(records, now, header):
                stays[record[at.SERIAL], reason] = (route.name, record)
                if (record[at.SERIAL], reason) not in self._stays:
                    route.words[_DETECTIONS[(reason,)]] += 1
                    findings.events.append(self._event(route.name, record, reason, now))
                    self._act(record[at.SERIAL], reason)
        if findings.events or self._due(now, bool(stays)):
            self._told_at = now
            findings.connections = self._where(serial for serial, _ in stays)
        self._stays = set(stays)
        return findings

    def _due(self, now: int, any_stuck: bool) -> bool:
        """Whether to look where connections wait although none became stuck."""
        return now - self._told_at >= TOLD_EVERY and (any_stuck or bool(self._worker.live))

    def _event(self, route: str, record: memoryview, reason: str, now: int) -> StuckEvent:
        serial, began = record[at.SERIAL], record[at.STATE_AT]
        if reason == "send_blocked":
            began = record[at.SENT_AT]
        elif reason == "handshake":
            began = record[at.OPENED_AT]
        elif reason == "draining":
            began = self._worker.segment.header[at.DRAINING_SINCE]
        where = self._stack(serial)
        watched = self._watched(serial)
        trace = None if watched is None else watched.found_stuck(reason)
        return StuckEvent(
            reason=reason,
            seconds=(now - began) / NS,
            worker=str(self._worker.segment.header[at.SLOT]),
            connection=serial,
            http_route=route,
            stack=where.lines,
            where=where.where,
            trace=trace,
        )

    def _act(self, serial: int, reason: str) -> None:
        conversation = self._worker.live.get(serial)
        if reason == "closing" and conversation is not None:
            conversation.cancel()  # where it was asked for

    def _watched(self, serial: int) -> Watched | None:
        return self._worker.live.get(serial) or self._worker.left.get(serial)

    def _stack(self, serial: int) -> Stack:
        watched = self._watched(serial)
        return Stack() if watched is None else Stack(*chain(watched.awaitable))

    def _where(self, first: Iterator[int]) -> dict[int, Stack]:
        """Look at the stuck connections, then at the oldest, as far as there is room."""
        found: dict[int, Stack] = {}
        for serials in (first, iter(tuple(self._worker.live)[:MOST_CONNECTIONS])):
            for serial in serials:
                if len(found) == MOST_CONNECTIONS:
                    return found
                if serial not in found:
                    found[serial] = self._stack(serial)
        return found
