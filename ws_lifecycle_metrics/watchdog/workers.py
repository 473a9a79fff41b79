"""Which workers are stuck, judged from outside: by beat, process state, lock and sockets.

A judge remembers what it saw before: a beat that moves needs no clock in common, and a death
that others have archived meanwhile is still noticed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from ..store import layout as at
from ..store.archive import unannounced_deaths
from ..store.layout import LIMIT, NS
from ..store.process import is_here, namespace
from ..store.reader import Contents
from ..store.series import open_connections
from .kernel import View
from .processes import Process, ProcessTable, Sockets

STARVED_FACTOR = 3
"""A loop that gets no processor is stuck after so many times the threshold."""
VACANT_SHOWN = 600 * NS
"""Time for which a dead worker is missed that nobody replaces."""
GRACE = 2 * NS
"""After a pause of our own (a stopped machine), time in which a beat may come."""


@dataclass(frozen=True, slots=True)
class Health:
    """How a worker is. `reason` is None if it serves; `detail` is a line for people.

    `clock` is its monotonic time at the reading, in ns; `beat_age` in s, None if nobody knows.
    `activity` is "busy", "blocked", "starved" or "" while it does not beat. `here` is whether
    the pid is known to be its process still, and that of no other container. `ended` is whether
    its loop has, in a process that lives on.
    """

    worker: str
    pid: int
    uuid: int
    clock: int
    reason: str | None = None
    detail: str = ""
    beat_age: float | None = None
    activity: str = ""
    draining: bool = False
    orphaned: bool = False
    replaced: bool = False
    sockets: Sockets | None = None
    ghosts: int = 0
    here: bool = False
    ended: bool = False

    @property
    def name(self) -> str:
        """What people call it, with the pid to act on where it is known: "worker 1 (pid 77)"."""
        return f"worker {self.worker}" + (f" (pid {self.pid})" if self.pid else "")

    @property
    def failing(self) -> bool:
        """Whether it should be restarted: not where another has taken a dead one's place."""
        return self.reason is not None and not self.replaced


def has_ended(header: memoryview) -> bool:
    """Whether a worker has drained and no longer beats, as it did before: it will not serve again.

    The process keeps its segment for as long as it lives.
    """
    return bool(header[at.DRAINING_SINCE] and header[at.BEATS] and not header[at.HEARTBEAT_AT])


def serving(health: Iterable[Health]) -> list[Health]:
    """Return the workers that live and whose loop has not ended: those that people count."""
    return [h for h in health if h.reason != "dead" and not h.ended]


@dataclass(slots=True)
class _Seen:
    """A beat when it was first seen, and what the loop's thread had used by then."""

    beats: int
    at: int
    used: tuple[int, int] | None


class Judge:
    """Judges the workers of one service, reading after reading.

    `period` is the time in s between readings where they come regularly, else None.
    """

    def __init__(
        self,
        *,
        death_shown: float = 15.0,
        period: float | None = None,
        table: ProcessTable | None = None,
    ) -> None:
        self._death_shown = round(death_shown * NS)
        self._period = None if period is None else round(period * NS)
        self._table = ProcessTable() if table is None else table
        self._seen: dict[int, _Seen] = {}
        self._deaths: Counter[int] | None = None
        self._holders: dict[int, tuple[int, int]] = {}  # slot: pid, uuid of who lived in it
        self._died: dict[int, tuple[int, int, int]] = {}  # slot: when, pid, uuid
        self._looked_at = 0
        self._grace_until = 0

    def look(
        self,
        segments: Sequence[Contents],
        archived_deaths: Counter[int],
        now: int,
        views: Mapping[int, View] | None = None,
    ) -> list[Health]:
        """Return the health of the living workers, then of those that died of late."""
        if self._period and self._looked_at and now - self._looked_at > 3 * self._period:
            self._grace_until = now + GRACE
        self._looked_at = now
        living = [s for s in segments if s.alive]
        found = [self._living(worker, now, views or {}) for worker in living]
        found = list(_share_ghosts(found, living))
        self._seen = {worker.uuid: self._seen[worker.uuid] for worker in living}
        self._note_deaths(segments, archived_deaths, now)
        for worker in living:
            self._holders[worker.header[at.SLOT]] = (worker.header[at.PID], worker.uuid)
        return found + self._dead({worker.header[at.SLOT] for worker in living}, now)

    def _living(self, worker: Contents, now: int, views: Mapping[int, View]) -> Health:
        header = worker.header
        here = is_here(worker.header)
        process = self._table.process(header[at.PID]) if here else None
        if process is not None and process.start_ticks != header[at.START_TICKS]:
            process = None  # another process by now, or one that we cannot tell
        seen = self._note_beat(worker, now, process)
        clock, silent = _clock(header, seen, now), None
        if header[at.HEARTBEAT_AT]:
            silent = max(0, clock - header[at.HEARTBEAT_AT])
        activity = self._activity(header, seen, now, process)
        view = views.get(header[at.PID]) if here else None
        reason, detail = self._judge(header, process, silent, activity, view)
        if reason == "loop_blocked" and now < self._grace_until:
            reason, detail = None, ""
        missing = view.missing if view is not None else None
        return Health(
            worker=str(header[at.SLOT]),
            pid=header[at.PID],
            uuid=worker.uuid,
            clock=clock,
            reason=reason,
            detail=detail,
            beat_age=None if silent is None else silent / NS,
            activity=activity if reason == "loop_blocked" else "",
            draining=bool(header[at.DRAINING_SINCE]),
            orphaned=process is not None and process.parent == 1,
            sockets=view.sockets if view is not None else None,
            ghosts=missing.least if missing and missing.lasted(header[LIMIT["ghost"]], now) else 0,
            here=process is not None,
            ended=has_ended(header),
        )

    def _note_beat(self, worker: Contents, now: int, process: Process | None) -> _Seen:
        seen = self._seen.get(worker.uuid)
        if seen is None or seen.beats != worker.header[at.BEATS]:
            used = self._used(worker.header) if process is not None else None
            seen = self._seen[worker.uuid] = _Seen(worker.header[at.BEATS], now, used)
        return seen

    def _used(self, header: memoryview) -> tuple[int, int] | None:
        return self._table.schedule(header[at.PID], header[at.THREAD])

    def _activity(self, header: memoryview, seen: _Seen, now: int, process: Process | None) -> str:
        if process is None or seen.used is None or now - seen.at < NS:
            return ""
        if process.state == "D":
            return "uninterruptible"
        used = self._used(header)
        if used is None:
            return ""
        run, wait = ((b - a) / (now - seen.at) for a, b in zip(seen.used, used, strict=True))
        if run + wait < 0.5:
            return "blocked"
        # A loop that is well beats as soon as it gets a processor, and needs next to nothing.
        return "busy" if run >= 0.02 else "starved"

    def _judge(
        self,
        header: memoryview,
        process: Process | None,
        silent: int | None,
        activity: str,
        view: View | None,
    ) -> tuple[str | None, str]:
        if process is not None and process.state == "T":
            return "stopped", "stopped by a signal (SIGSTOP, SIGTSTP); SIGCONT lets it go on"
        limit, starved = header[LIMIT["loop_blocked"]], header[LIMIT["accept_starved"]]
        if silent is not None and limit and silent >= limit:
            if activity != "starved" or silent >= STARVED_FACTOR * limit:
                what = f", {_ACTIVITIES[activity]}" if activity else ""
                return "loop_blocked", f"its event loop has not run for {silent / NS:.1f} s{what}"
        elif view is not None and view.queue and view.queue.lasted(starved, self._looked_at):
            return "accept_starved", f"{view.queue.least} clients wait to be accepted"
        return None, ""

    def _note_deaths(self, segments: Sequence[Contents], archived: Counter[int], now: int) -> None:
        if self._deaths is None:  # what was archived before our time is history
            self._deaths = Counter(archived)
        fresh = {s.header[at.SLOT]: (s.header[at.PID], s.uuid) for s in segments if not s.alive}
        deaths = archived + unannounced_deaths(list(segments))
        for slot in deaths - self._deaths:
            # Whose segment others have folded meanwhile is the one that we saw last.
            self._died[slot] = (now, *(fresh.get(slot) or self._holders.get(slot, (0, 0))))
        self._deaths = deaths

    def _dead(self, living: set[int], now: int) -> list[Health]:
        found = []
        for slot, (when, pid, uuid) in list(self._died.items()):
            shown = self._death_shown if slot in living else VACANT_SHOWN
            if now - when > shown:
                del self._died[slot]
                continue
            detail = f"it died {(now - when) / NS:.0f} s ago without closing"
            found.append(Health(str(slot), pid, uuid, now, "dead", detail, replaced=slot in living))
        return found


def _share_ghosts(found: list[Health], living: list[Contents]) -> Iterator[Health]:
    """Count each ghost of a process for one of its loops: the kernel tells of processes alone."""
    left: dict[int, int] = {}
    for health, worker in zip(found, living, strict=True):
        if not health.ghosts:
            yield health
            continue
        rest = left.get(health.pid, health.ghosts)
        own = min(rest, open_connections(worker))
        left[health.pid] = rest - own
        yield replace(health, ghosts=own)


_ACTIVITIES = {
    "busy": "busy in Python or C code",
    "blocked": "blocked: its thread sleeps",
    "starved": "its thread gets no processor",
    "uninterruptible": "its thread waits in the kernel, uninterruptible",
}


def _clock(header: memoryview, seen: _Seen, now: int) -> int:
    """Return the worker's monotonic time at our time `now`."""
    if header[at.TIME_NAMESPACE] == namespace("time") or not header[at.HEARTBEAT_AT]:
        return now
    # Its clock has another origin; what we saw of its beats says how far it has come.
    return int(header[at.HEARTBEAT_AT]) + now - seen.at
