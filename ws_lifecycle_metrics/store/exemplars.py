"""Exemplars: for each bucket of a histogram, the trace of one observation that fell into it."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from . import layout as at
from .layout import OPERATION_BLOCK, ROUTE_BLOCK, HistogramWords, Stored
from .reader import Contents

MASK = (1 << 64) - 1
# So that words which were never written do not check.
_SALT = 0x9E3779B97F4A7C15


def _of(block: dict[str, Stored]) -> list[tuple[str, tuple[str, ...], HistogramWords]]:
    return [
        (name, labels, stored.histogram(*labels))
        for name, stored in block.items()
        for labels in stored.exemplars
    ]


_ROUTE, _OPERATION = _of(ROUTE_BLOCK), _of(OPERATION_BLOCK)

Key = tuple[str, tuple[str, ...]]
"""Metric name and label values, the block's own included."""


@dataclass(frozen=True, slots=True)
class Exemplar:
    """One traced observation: `value` in seconds, `timestamp` in Unix seconds."""

    trace_id: int
    span_id: int
    value: float
    timestamp: float


def write(
    histogram: HistogramWords, words: memoryview, ns: int, trace: tuple[int, int], wall_ns: int
) -> None:
    """Keep a traced duration of `ns` nanoseconds as the latest of its bucket."""
    trace_id, span_id = trace
    start = histogram.exemplars_at + at.EXEMPLAR_WORDS * bisect_left(histogram.bounds, ns)
    high, low = trace_id >> 64, trace_id & MASK
    values = (high, low, span_id, ns, wall_ns, high ^ low ^ span_id ^ ns ^ wall_ns ^ _SALT)
    for offset, value in enumerate(values):
        words[start + offset] = value


def read(words: memoryview, start: int) -> tuple[int, Exemplar] | None:
    """Return value in ns and exemplar that stand at `start`; None: none, or a torn one."""
    high, low, span_id, ns, wall_ns, check = words[start : start + at.EXEMPLAR_WORDS].tolist()
    if high ^ low ^ span_id ^ ns ^ wall_ns ^ _SALT != check or not span_id or not high | low:
        return None
    return ns, Exemplar(high << 64 | low, span_id, ns / at.NS, wall_ns / at.NS)


def collect(workers: Iterable[Contents]) -> dict[Key, list[Exemplar | None]]:
    """Return the latest exemplar of each bucket, for the series that have any."""
    found: dict[Key, list[Exemplar | None]] = {}
    for worker in workers:
        for blocks, histograms in ((worker.routes, _ROUTE), (worker.operations, _OPERATION)):
            for owner, words in blocks.values():
                for name, labels, histogram in histograms:
                    for bucket, exemplar in _buckets(histogram, words):
                        key = (name, (owner, *labels))
                        have = found.setdefault(key, [None] * (len(histogram.bounds) + 1))
                        _keep_latest(have, bucket, exemplar)
    return found


def _keep_latest(have: list[Exemplar | None], bucket: int, exemplar: Exemplar) -> None:
    old = have[bucket]
    if old is None or old.timestamp < exemplar.timestamp:
        have[bucket] = exemplar


def _buckets(histogram: HistogramWords, words: memoryview) -> Iterator[tuple[int, Exemplar]]:
    size, start = len(histogram.bounds) + 1, histogram.exemplars_at
    if not any(words[start : start + at.EXEMPLAR_WORDS * size]):
        return  # as in most routes: nothing was traced
    for bucket in range(size):
        one = read(words, start + at.EXEMPLAR_WORDS * bucket)
        # A bucket's exemplar lies within it, whatever a damaged segment says.
        if one is not None and bisect_left(histogram.bounds, one[0]) == bucket:
            yield bucket, one[1]
