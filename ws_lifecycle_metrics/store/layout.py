"""The layout of a segment: which 64-bit word means what.

A segment is a header and a list of blocks. A block carries its kind, its size in words and a
name; what stands in it follows from the catalogue, so writer and reader cannot disagree: the
fingerprint of the derived layout is in the header, and a reader takes no other.
All words are unsigned, native and aligned; a word is written with one 8-byte store.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from dataclasses import dataclass
from enum import IntEnum

from ..catalog import METRICS, SEND_DURATION, STUCK_REASONS, Block, Kind, Metric

WORD = 8
NS = 1_000_000_000

MAGIC = int.from_bytes(b"WSLIFE01", "little")
"""Read in another byte order it is another number, so foreign endianness is refused too."""

HEADER_WORDS = 64
(
    MAGIC_AT,
    FINGERPRINT_AT,
    STATUS,
    USED,  # words of the file that are published; written last
    PID,
    START_TICKS,  # the process's start time: tells a reused pid apart
    BOOT_HIGH,
    BOOT_LOW,
    PID_NAMESPACE,
    TIME_NAMESPACE,
    UID,
    UUID_HIGH,
    UUID_LOW,
    CREATED_AT,  # CLOCK_MONOTONIC, ns
    CREATED_WALL,  # Unix time, ns
    SLOT,
    THREAD,
    DRAINING_SINCE,  # CLOCK_MONOTONIC, ns; 0: serving
    SWITCHED_OFF_SINCE,
    FULL,  # times that no room could be had, since there was some
    HEARTBEAT_AT,  # CLOCK_MONOTONIC, ns; 0: nobody knows whether the loop runs
    BEATS,  # moves also where another clock cannot be compared
    LOOP_LAG,  # of the latest beat, ns
    SHARED_SOCKETS,  # a scope over HTTP/2 was seen: connections may share one socket
    LIMITS,  # the first of the thresholds, ns, so that all readers judge as the worker does
) = range(25)
LIMIT = {
    reason: LIMITS + number
    for number, reason in enumerate((*STUCK_REASONS, "loop_blocked", "accept_starved"))
}
"""The header's word of each threshold; 0: not judged."""


class Status(IntEnum):
    """Whether the worker still writes."""

    READY = 1
    CLOSED = 2


class BlockKind(IntEnum):
    """What a block holds."""

    PADDING = 0
    WORKER = 1
    ROUTE = 2
    SUBPROTOCOL = 3
    RECORDS = 4
    OPERATION = 5


# A block starts with: its kind, its size in words (these included), the bytes of its name,
# the index of the block of the same segment that it belongs to.
BLOCK_KIND, BLOCK_WORDS, BLOCK_NAME_BYTES, BLOCK_OWNER, BLOCK_NAME = range(5)
MAX_NAME_BYTES = 1024

MAX_BYTES = 40 << 20
"""No segment grows larger and no reader takes a larger one; room for 100,000 connections."""


# The record of a connection. Counts only ever grow, also when the record is used for the next
# connection of the same route: a route's total is the sum over its records, and it never falls.
RECORD_WORDS = 32
(
    STATE,  # 0: free; ORPHANED; else the code of the protocol's state + 1
    SERIAL,
    OPENED_AT,
    STATE_AT,
    # What one connection is all about; 0 when it begins.
    ANSWERED_AT,  # when the handshake was counted, whatever its result
    RECEIVING,  # receive() calls that have not returned
    RECEIVED_AT,
    SENDING,  # send() calls that have not returned
    SENT_AT,  # start of the latest send()
    SUBPROTOCOL,  # number of its name's block + 1; 0: none
    VIOLATIONS,
    OPERATIONS,  # GraphQL subscriptions that run
    CLOSE_CODE,  # of the close that came first; 0: none, or one without a code
    GRAPHQL,  # a GraphQLState
    # Counts, and what stood there when this connection began.
    RECEIVED_TEXT,
    RECEIVED_BINARY,
    RECEIVED_BYTES,
    SENT_TEXT,
    SENT_BINARY,
    SLOW_TEXT,  # sends that took longer than the histogram's first bound
    SLOW_BINARY,
    SENT_BYTES,
    SENT_NS,
    BASE,
) = range(24)

OWN = slice(ANSWERED_AT, RECEIVED_TEXT)
NOTHING = memoryview(bytes((OWN.stop - OWN.start) * WORD)).cast("Q")
COUNTED, BASES = slice(RECEIVED_TEXT, BASE), slice(BASE, RECORD_WORDS)

ORPHANED = 255
"""The state of a record whose connection has ended and whose operations go on."""


class GraphQLState(IntEnum):
    """How far a connection has come in a GraphQL subprotocol."""

    NO_INIT = 0  # the client has not sent connection_init
    INITIALISED = 1
    SUBSCRIBED_EARLY = 2  # it subscribed without connection_init


RECEIVED = (RECEIVED_TEXT, RECEIVED_BINARY)
SENT = (SENT_TEXT, SENT_BINARY, SLOW_TEXT, SLOW_BINARY)
COUNTS = (*RECEIVED, RECEIVED_BYTES, *SENT, SENT_BYTES, SENT_NS)
"""The words of a record that only grow."""


def column(records: memoryview, word: int) -> list[int]:
    """Return one word of each record of a block."""
    return records[word::RECORD_WORDS].tolist()


def counted(record: memoryview, *words: int) -> int:
    """Return by how much the counts in `words` have grown with the connection of a record."""
    grown = (record[word] - record[word - RECEIVED_TEXT + BASE] for word in words)
    return max(0, sum(grown))  # a reader may meet a record whose bases are being written


# For each bucket of a histogram of a route or an operation: one traced observation. The check
# word is of all others, so that a reader which meets a half-written one knows it.
EXEMPLAR_WORDS = 6
EX_TRACE_HIGH, EX_TRACE_LOW, EX_SPAN, EX_VALUE, EX_TIME, EX_CHECK = range(EXEMPLAR_WORDS)

FAST_NS = int(SEND_DURATION.buckets[0] * NS)


@dataclass(frozen=True, slots=True)
class HistogramWords:
    """A histogram within its block: a word for each bucket, one above the last, the sum in ns."""

    at: int
    bounds: tuple[int, ...]
    sum_at: int
    exemplars_at: int

    def bucket(self, ns: int) -> int:
        """Return the word that counts a duration of `ns` nanoseconds."""
        return self.at + bisect_left(self.bounds, ns)

    def observe(self, words: memoryview, ns: int) -> None:
        """Count a duration of `ns` nanoseconds."""
        words[self.bucket(ns)] += 1
        words[self.sum_at] += ns


@dataclass(frozen=True, slots=True)
class Stored:
    """A metric's words within its block: the first word of each series, `size` words a series.

    The keys are the label values that remain without the block's own, as in `Metric.series`.
    `exemplars` says where those of a histogram's buckets stand; empty: it has none.
    """

    metric: Metric
    offsets: dict[tuple[str, ...], int]
    size: int
    exemplars: dict[tuple[str, ...], int]

    def histogram(self, *labels: str) -> HistogramWords:
        """Return where one series of a histogram stands."""
        at = self.offsets[labels]
        bounds = tuple(round(bound * NS) for bound in self.metric.buckets)
        return HistogramWords(at, bounds, at + self.size - 1, self.exemplars.get(labels, -1))


def _lay_out(block: Block) -> tuple[dict[str, Stored], int]:
    stored: dict[str, Stored] = {}
    at = 0
    for name, metric in METRICS.items():
        if metric.block is block:
            size = words_of(metric)
            offsets = {labels: at + index * size for index, labels in enumerate(metric.series)}
            at += size * len(offsets)
            exemplars: dict[tuple[str, ...], int] = {}
            if metric.kind is Kind.HISTOGRAM and block is not Block.WORKER:
                room = EXEMPLAR_WORDS * (size - 1)
                exemplars = {labels: at + i * room for i, labels in enumerate(metric.series)}
                at += room * len(exemplars)
            stored[name] = Stored(metric, offsets, size, exemplars)
    return stored, at


def words_of(metric: Metric) -> int:
    """Return how many words a series of `metric` takes."""
    return len(metric.buckets) + 2 if metric.kind is Kind.HISTOGRAM else 1


WORKER_BLOCK, WORKER_BLOCK_WORDS = _lay_out(Block.WORKER)
ROUTE_BLOCK, ROUTE_BLOCK_WORDS = _lay_out(Block.ROUTE)
OPERATION_BLOCK, OPERATION_BLOCK_WORDS = _lay_out(Block.OPERATION)


def _fingerprint() -> int:
    metrics = [(m.name, m.kind.value, m.series, m.buckets, m.block) for m in METRICS.values()]
    text = repr(
        (
            HEADER_WORDS,
            LIMIT,
            RECORD_WORDS,
            COUNTS,
            GRAPHQL,
            EXEMPLAR_WORDS,
            list(BlockKind),
            metrics,
        )
    )
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


FINGERPRINT = _fingerprint()
