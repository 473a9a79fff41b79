"""The kernel's view of the workers' sockets, read seldom because reading it costs much."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..store import layout as at
from ..store.layout import NS
from ..store.process import is_here
from ..store.reader import Contents
from ..store.series import open_connections
from .processes import ProcessTable, Sockets

EVERY, AT_MOST_EVERY = NS, 15 * NS
COST_SHARE, HURRIED_SHARE = 100, 10
"""A reading is followed by a pause of so many times what it took; of fewer while clients wait."""
LATE = 3 * NS
"""After a pause of our own nobody knows what was so meanwhile."""
LEAST_READINGS = 3


@dataclass(frozen=True, slots=True)
class Trend:
    """For how long something has been so in every reading, in ns, and the least of it."""

    since: int
    until: int
    readings: int
    least: int

    def lasted(self, limit: int, now: int) -> bool:
        """Whether it was so for `limit` ns, seen often enough to be no coincidence."""
        until = min(now, self.until + EVERY)  # the next reading is not waited for
        return self.readings >= LEAST_READINGS and until - self.since >= limit


@dataclass(frozen=True, slots=True)
class View:
    """The sockets of a worker's process; `queue` and `missing` while there are any.

    `missing` are connections of the segments for which the process has no socket.
    """

    sockets: Sockets
    queue: Trend | None = None
    missing: Trend | None = None


class Kernel:
    """Keeps the latest reading; `views` is by pid."""

    def __init__(
        self, table: ProcessTable | None = None, clock: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self.views: dict[int, View] = {}
        self._table = ProcessTable() if table is None else table
        self._clock = clock
        self._next = 0

    def look(self, workers: Sequence[Contents]) -> None:
        """Read the sockets of the workers if it is time to."""
        now = self._clock()
        if now < self._next:
            return
        if now - self._next > LATE:
            self.views = {}  # they begin anew: who looks comes often
        open_scopes: dict[int, int | None] = {}
        for worker in (w for w in workers if is_here(w.header)):
            pid = worker.header[at.PID]
            known = open_scopes.get(pid, 0)
            # Over HTTP/2 many connections share a socket: nothing can be missed.
            shared = known is None or worker.header[at.SHARED_SOCKETS]
            open_scopes[pid] = None if shared else (known or 0) + open_connections(worker)
        found = self._table.sockets(list(open_scopes))
        self.views = {
            pid: self._view(now, pid, sockets, open_scopes[pid]) for pid, sockets in found.items()
        }
        took = self._clock() - now
        waiting = any(view.queue for view in self.views.values())
        share = HURRIED_SHARE if waiting else COST_SHARE
        self._next = now + took + min(max(EVERY, share * took), AT_MOST_EVERY)

    def _view(self, now: int, pid: int, sockets: Sockets, scopes: int | None) -> View:
        before = self.views.get(pid, View(sockets))
        # A server on a UNIX socket has connections that this table does not show.
        judged = scopes is not None and sockets.listening > 0
        missing = (scopes or 0) - sockets.connections if judged else 0
        return View(
            sockets=sockets,
            queue=_trend(before.queue, now, sockets.accept_queue),
            missing=_trend(before.missing, now, missing),
        )


def _trend(before: Trend | None, now: int, amount: int) -> Trend | None:
    if amount <= 0:
        return None
    if before is None:
        return Trend(now, now, 1, amount)
    return Trend(before.since, now, before.readings + 1, min(before.least, amount))
