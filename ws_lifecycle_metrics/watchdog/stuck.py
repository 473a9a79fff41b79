"""Why a connection is stuck, judged from the words of its record: no clock, no I/O.

Every reader judges alike, because the thresholds stand in the segment's header beside the words.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import compress

from ..config import Config
from ..labels import TraceIds
from ..protocol import OPEN, STATES, AppState
from ..protocol.table import FINISHED, GONE
from ..store import layout as at
from ..store.layout import LIMIT, NS

_HANDSHAKE, _SEND, _CLOSING = LIMIT["handshake"], LIMIT["send_blocked"], LIMIT["closing"]
_WITHHELD, _DRAINING = LIMIT["receive_withheld"], LIMIT["draining"]
_ORPHAN = LIMIT["orphan_subscription"]

_UNANSWERED = frozenset(
    state.code + 1
    for state in STATES
    if state.app in (AppState.UNANSWERED, AppState.DENYING) and state.server not in GONE
)
_GONE = frozenset(state.code + 1 for state in STATES if state.server in GONE)
_CLOSED = frozenset(
    state.code + 1 for state in STATES if state.app in FINISHED and state.server not in GONE
)
_QUIET = frozenset((0, OPEN.code + 1))
"""The states of a record in which nothing but a send can be overdue."""


@dataclass(frozen=True, slots=True)
class StuckEvent:
    """One detection, as `Config.on_stuck` gets it.

    `connection` is its number within the worker, None where the worker itself is stuck
    (`reason` is "loop_blocked"). `stack` are lines "file:line:function", outermost first; the
    last one in the user's own code is `where`, empty if there is none. `trace` are trace id
    and span id of the connection's handshake, None where it is not traced.
    """

    reason: str
    seconds: float
    worker: str
    connection: int | None = None
    http_route: str = ""
    stack: tuple[str, ...] = ()
    where: str = ""
    trace: TraceIds | None = None


def write_limits(header: memoryview, config: Config) -> None:
    """Write the thresholds of `config` into a segment's header."""
    for reason, word in LIMIT.items():
        header[word] = round(getattr(config, f"stuck_{reason}") * NS)


def reason(record: memoryview, now: int, header: memoryview) -> str | None:
    """Return why the connection of `record` is stuck at `now`, or None.

    `now` is on the worker's monotonic clock, in ns. Of several reasons the narrowest one
    counts: a blocked send before the state in which it happens.
    """
    state = record[at.STATE]
    if state in (0, at.ORPHANED):
        late = state and _late(now, record[at.STATE_AT], header[_ORPHAN])
        return "orphan_subscription" if late else None
    if record[at.SENDING] and _late(now, record[at.SENT_AT], header[_SEND]):
        return "send_blocked"
    in_state = record[at.STATE_AT]
    if state in _UNANSWERED:
        found = _late(now, record[at.OPENED_AT], header[_HANDSHAKE]) and "handshake"
    elif state in _CLOSED and record[at.RECEIVING]:
        found = _late(now, in_state, header[_WITHHELD]) and "receive_withheld"
    else:
        ending = state in _GONE or state in _CLOSED
        found = ending and _late(now, in_state, header[_CLOSING]) and "closing"
    since = header[at.DRAINING_SINCE]
    return found or ("draining" if since and _late(now, since, header[_DRAINING]) else None)


def _late(now: int, since: int, limit: int) -> bool:
    return bool(limit) and now - since >= limit


def find(records: memoryview, now: int, header: memoryview) -> Iterator[tuple[memoryview, str]]:
    """Yield the stuck records of a block, each with the reason."""
    for start in _candidates(records, header):
        record = records[start : start + at.RECORD_WORDS]
        found = reason(record, now, header)
        if found is not None:
            yield record, found


def _candidates(records: memoryview, header: memoryview) -> Iterator[int]:
    """Yield where the records begin that are worth a look, from whole columns at a time."""
    states = at.column(records, at.STATE)
    starts = range(0, len(records), at.RECORD_WORDS)
    if header[at.DRAINING_SINCE]:
        return compress(starts, states)
    sending = at.column(records, at.SENDING)
    if not any(sending) and _QUIET.issuperset(states):  # as most blocks are
        return iter(())
    return (
        start
        for start, state, sends in zip(starts, states, sending, strict=True)
        if state and (sends or state not in _QUIET)
    )
