"""Adds up what segments have counted, by metric and labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from .. import catalog
from ..catalog import METRICS, Metric
from ..protocol import STATES
from . import layout as at
from .layout import OPERATION_BLOCK, ROUTE_BLOCK, WORKER_BLOCK, Stored, words_of
from .reader import Contents

Totals = dict[tuple[str, tuple[str, ...]], list[int]]
"""Metric name and label values to words: one for a counter; for a histogram one for each
bucket, one for what is above the last, and the sum in nanoseconds."""


_ACCEPTED = ROUTE_BLOCK[catalog.HANDSHAKES.name].offsets[("accepted",)]
_CLOSES = tuple(ROUTE_BLOCK[catalog.CLOSES.name].offsets.values())


def add_segment(totals: Totals, contents: Contents) -> None:
    """Add all counts of a segment; of a dead one, its open connections as lost."""
    slot = str(contents.header[at.SLOT])
    for metric, labels, words in _stored(_WORKER, contents.worker):
        own = (slot,) if "worker" in metric.labels else ()
        add(totals, metric, (*own, *labels), words)
    for route, values in contents.routes.values():
        for metric, labels, words in _stored(_ROUTE, values):
            add(totals, metric, (route, *labels), words)
    for operation, values in contents.operations.values():
        for metric, labels, words in _stored(_OPERATION, values):
            add(totals, metric, (operation, *labels), words)
    _add_records(totals, contents)
    if not contents.alive:
        _add_lost(totals, contents)


def add(totals: Totals, metric: Metric, labels: tuple[str, ...], words: list[int]) -> None:
    """Add words to those of the same metric and labels."""
    key = (metric.name, labels)
    have = totals.get(key)
    totals[key] = words if have is None else [a + b for a, b in zip(have, words, strict=True)]


_here: Totals = {}
"""What this process counts that belongs to no segment."""


def count_here(metric: Metric, labels: tuple[str, ...]) -> None:
    """Count once, for the snapshots that this process takes."""
    add(_here, metric, labels, [1])


def counted_here() -> Totals:
    """Return what `count_here` has counted."""
    return dict(_here)


def merge(totals: Totals, others: Totals) -> None:
    """Add other totals to `totals`."""
    for (name, labels), words in others.items():
        add(totals, METRICS[name], labels, words)


_Laid = list[tuple[Metric, tuple[str, ...], int, int]]


def _laid(block: dict[str, Stored]) -> _Laid:
    """Return where the words of each series of a block begin and end."""
    return [
        (stored.metric, labels, start, start + stored.size)
        for stored in block.values()
        for labels, start in stored.offsets.items()
    ]


_WORKER, _ROUTE, _OPERATION = map(_laid, (WORKER_BLOCK, ROUTE_BLOCK, OPERATION_BLOCK))


def _stored(laid: _Laid, values: memoryview) -> Iterator[tuple[Metric, tuple[str, ...], list[int]]]:
    whole = values.tolist()
    for metric, labels, start, end in laid:
        words = whole[start:end]
        if any(words):
            yield metric, labels, words


def _add_records(totals: Totals, contents: Contents) -> None:
    """Add what the records of each route have counted."""
    sums: dict[int, Counter[int]] = {}
    for owner, records in contents.records:
        counts = {word: sum(at.column(records, word)) for word in at.COUNTS}
        sums.setdefault(owner, Counter()).update(counts)
    for owner, count in sums.items():
        route = contents.routes[owner][0]
        text, binary = count[at.SENT_TEXT], count[at.SENT_BINARY]
        # The slow sends, above the first bound, are counted in the route's block.
        duration = [text + binary, *[0] * (words_of(catalog.SEND_DURATION) - 2), count[at.SENT_NS]]
        add(totals, catalog.RECEIVED_MESSAGES, (route, "text"), [count[at.RECEIVED_TEXT]])
        add(totals, catalog.RECEIVED_MESSAGES, (route, "binary"), [count[at.RECEIVED_BINARY]])
        add(totals, catalog.RECEIVED_BYTES, (route,), [count[at.RECEIVED_BYTES]])
        add(totals, catalog.SENT_MESSAGES, (route, "text"), [text + count[at.SLOW_TEXT]])
        add(totals, catalog.SENT_MESSAGES, (route, "binary"), [binary + count[at.SLOW_BINARY]])
        add(totals, catalog.SENT_BYTES, (route,), [count[at.SENT_BYTES]])
        add(totals, catalog.SEND_DURATION, (route,), duration)


def _add_lost(totals: Totals, contents: Contents) -> None:
    """Count what a dead worker left open: connections as lost, handshakes as aborted.

    That it is counted where there is none, too, keeps the series of its routes and of its slot
    known: they stood at 0, and must not go away.
    """
    slot = str(contents.header[at.SLOT])
    add(totals, catalog.LOOP_STALLS, (slot, catalog.STALL_SEVERITIES[0]), [0])
    for route, values in contents.routes.values():
        # Not counted from the records: a worker that is killed between two stores leaves
        # counters and records at odds, and a connection must be either closed or lost.
        lost = values[_ACCEPTED] - sum(values[word] for word in _CLOSES)
        add(totals, catalog.LOST_CONNECTIONS, (route,), [max(0, lost)])
    for owner, records in contents.records:
        pairs = zip(at.column(records, at.STATE), at.column(records, at.ANSWERED_AT), strict=True)
        aborted = sum(
            1 for state, answered in pairs if state not in (0, at.ORPHANED) and not answered
        )
        add(totals, catalog.HANDSHAKES, (contents.routes[owner][0], "aborted"), [aborted])


def state_label(word: int) -> str:
    """Return the `state` label of a record's state word; of a damaged one, `closing`."""
    return STATES[word - 1].label if 1 <= word <= len(STATES) else "closing"
