"""The counters of GraphQL operation names, in words that the worker's thread alone writes."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from .. import catalog
from ..config import Config
from ..labels import OTHER, Cap, safe_label
from .layout import OPERATION_BLOCK
from .writer import Block, copied

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

    __slots__ = ("_errors", "_events", "name", "words")

    def __init__(self, name: str, block: Block) -> None:
        self.name = name
        self.words = block.words
        # Counted here and stored there: to read a word back costs more than to write it.
        self._events = self._errors = 0

    def began(self, kind: str) -> None:
        """Count the start of an operation: a query, mutation or subscription."""
        self.words[_REQUESTS[(kind,)]] += 1

    def finished(self, kind: str, took: int) -> None:
        """Count the end of an operation that was counted when it began."""
        _DURATION[kind].observe(self.words, took)

    def event(self) -> None:
        """Count a result of a subscription."""
        self._events = self.words[_EVENTS] = self._events + 1

    def event_error(self) -> None:
        """Count that the result carried errors."""
        self._errors = self.words[_ERRORS] = self._errors + 1

    def first_event(self, took: int) -> None:
        """Count the time that a subscription's first result took."""
        _FIRST_EVENT.observe(self.words, took)

    def ended(self, reason: str) -> None:
        """Count the end of a subscription."""
        self.words[_ENDS[(reason,)]] += 1

    def forget(self) -> None:
        """Write where nobody reads, in a forked child."""
        self.words = copied(self.words)


class Operations:
    """The operation names of a worker, up to the cap; `add` makes a block, None without room."""

    def __init__(
        self, config: Config, add: Callable[[str], Block | None], overflow: Callable[[], object]
    ) -> None:
        self._add = add
        self._overflow = overflow
        self._configured = config.operations
        # Beside the configured ones: no client's name may take the place of having none.
        self._cap = Cap(config.max_operations + 1, (ANONYMOUS, *config.operations), overflow)
        self._known: dict[str, Operation] = {}

    def known(self) -> Iterable[Operation]:
        """Return those that have counters."""
        return self._known.values()

    def get(self, name: object, *, admit: bool) -> Operation | None:
        """Return the counters of a name; beyond the cap those of `other`.

        With `admit=False` a name that is not known yet takes no place and goes to `other`.
        None where not even that has room.
        """
        known = self._known.get(name) if type(name) is str else None
        if known is not None:
            return known
        if OTHER not in self._known:  # not before it is used: most applications have no GraphQL
            for reserved in (OTHER, *self._configured):
                self._make(safe_label(reserved))
        label = self._cap.fold(name) if admit else safe_label(name)
        known = self._known.get(label)
        if known is None and (admit or label == ANONYMOUS):  # which has its place already
            known = self._make(label)
        return known or self._known.get(OTHER)

    def _make(self, label: str) -> Operation | None:
        block = self._add(label)
        if block is None:
            self._overflow()
            return None
        operation = self._known[label] = Operation(label, block)
        return operation
