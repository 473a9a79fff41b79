"""The counters of one GraphQL operation name, in words that the worker's thread alone writes."""

from __future__ import annotations

from .. import catalog
from .layout import OPERATION_BLOCK
from .writer import Block

ANONYMOUS = "anonymous"
"""The name of operations that have none."""

_REQUESTS = OPERATION_BLOCK[catalog.GRAPHQL_REQUESTS.name].offsets
_DURATION = {
    kind: OPERATION_BLOCK[catalog.GRAPHQL_DURATION.name].histogram(kind)
    for kind in catalog.OPERATION_TYPES
}
_EVENTS = OPERATION_BLOCK[catalog.SUBSCRIPTION_EVENTS.name].offsets[()]
_ERRORS = OPERATION_BLOCK[catalog.SUBSCRIPTION_ERRORS.name].offsets[()]
_FIRST_EVENT = OPERATION_BLOCK[catalog.SUBSCRIPTION_FIRST_EVENT.name].histogram()
_ENDS = OPERATION_BLOCK[catalog.SUBSCRIPTION_ENDS.name].offsets


class Operation:
    """The counters of one operation name; all durations are in nanoseconds.

    How many run is never stored: it is what began less what ended, two counts that only grow,
    in the segment of the worker that saw both. No update can be lost or made twice by a
    correction, and a worker that dies takes its running operations with it.
    """

    __slots__ = ("name", "words")

    def __init__(self, name: str, block: Block) -> None:
        self.name = name
        self.words = block.words

    def began(self, kind: str) -> None:
        """Count the start of an operation: a query, mutation or subscription."""
        self.words[_REQUESTS[(kind,)]] += 1

    def finished(self, kind: str, took: int) -> None:
        """Count the end of an operation that was counted when it began."""
        _DURATION[kind].observe(self.words, took)

    def event(self) -> None:
        """Count a result of a subscription."""
        self.words[_EVENTS] += 1

    def event_error(self) -> None:
        """Count that the result carried errors."""
        self.words[_ERRORS] += 1

    def first_event(self, took: int) -> None:
        """Count the time that a subscription's first result took."""
        _FIRST_EVENT.observe(self.words, took)

    def ended(self, reason: str) -> None:
        """Count the end of a subscription."""
        self.words[_ENDS[(reason,)]] += 1
