"""Which series a service has before anything is counted, and what is computed from its words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import compress

from .. import catalog
from ..catalog import METRICS, Metric
from ..labels import OTHER
from . import layout as at
from .layout import OPERATION_BLOCK, GraphQLState
from .reader import Contents
from .totals import Totals, state_label

Labels = tuple[str, ...]

_REQUESTS = OPERATION_BLOCK[catalog.GRAPHQL_REQUESTS.name]
_DURATION = OPERATION_BLOCK[catalog.GRAPHQL_DURATION.name]
_SUBPROTOCOLS = ("graphql-transport-ws", "graphql-ws")
_STATES: dict[int, str] = {
    GraphQLState.NO_INIT: "connection_init not received",
    GraphQLState.INITIALISED: "initialised",
    GraphQLState.SUBSCRIBED_EARLY: "subscribed before connection_init",
}


class Series:
    """The label values of workers and of the totals of all, dead ones included."""

    def __init__(self, workers: Iterable[Contents], totals: Totals) -> None:
        self.workers = list(workers)
        self.routes = {name for w in self.workers for name, _ in w.routes.values()} | {OTHER}
        self.slots = {str(worker.header[at.SLOT]) for worker in self.workers}
        # A name has the types that it was seen with, and hardly any has more than one.
        self.requests: set[Labels] = set()
        for name, labels in totals:
            if name == catalog.GRAPHQL_REQUESTS.name:
                self.requests.add(labels)
                continue
            match METRICS[name].labels[:1]:
                case ("http_route",):
                    self.routes.add(labels[0])
                case ("worker",):
                    self.slots.add(labels[0])

    def known(self, metric: Metric) -> list[Labels]:
        """Return the series of a counted metric that stand at 0 before they have counted.

        None of them goes away while the archive is there: what made it known is in the totals.
        """
        if "graphql_operation_type" in metric.labels:
            return sorted(self.requests)
        owners: list[Labels] = [()]
        match metric.labels[:1]:
            case ("http_route",):
                owners = [(route,) for route in sorted(self.routes)]
            case ("graphql_operation_name",):
                owners = sorted((n,) for n, kind in self.requests if kind == metric.operation_type)
            case ("worker",):
                owners = [(slot,) for slot in sorted(self.slots)]
        return [(*owner, *labels) for owner in owners for labels in metric.zeros]

    def active_operations(self) -> dict[Labels, float]:
        """Return how many operations run by name and type: those that began less the ended.

        Of living workers alone. The words are copied while they are written, so an end may be
        seen without its beginning: for a moment, which 0 covers.
        """
        active: Counter[Labels] = Counter(dict.fromkeys(self.known(catalog.GRAPHQL_ACTIVE), 0))
        for worker in self.workers:
            for name, words in worker.operations.values():
                for (kind,), began in _REQUESTS.offsets.items():
                    ended = _DURATION.offsets[(kind,)]
                    running = words[began] - sum(words[ended : ended + _DURATION.size - 1])
                    if running > 0:
                        active[name, kind] += running
        return dict(active)


# There may be a hundred thousand records: they are looked at as whole columns, in C.


def open_states(states: list[int]) -> set[int]:
    """Return which of these state words are those of connections that have not ended."""
    return set(states) - {0, at.ORPHANED}


def open_connections(worker: Contents) -> int:
    """Return how many connections of a worker have not ended."""
    blocks = worker.states()
    return sum(len(block) - block.count(0) - block.count(at.ORPHANED) for block in blocks)


def orphans(workers: Iterable[Contents]) -> int:
    """Return how many subscriptions go on although their connection has ended."""
    found = 0
    for worker in workers:
        for (_, records), states in zip(worker.records, worker.states(), strict=True):
            if at.ORPHANED in states:
                running = at.column(records, at.OPERATIONS)
                found += sum(compress(running, map(at.ORPHANED.__eq__, states)))
    return found


def active_states(
    worker: Contents, records: memoryview, states: list[int]
) -> dict[tuple[str, int], int]:
    """Return the number of connections of a block by subprotocol and state word."""
    found = open_states(states)
    if not found:
        return {}
    subprotocols = at.column(records, at.SUBPROTOCOL)
    if not any(subprotocols):
        return {("", state): states.count(state) for state in found}
    pairs = Counter(zip(subprotocols, states, strict=True))
    names = worker.subprotocols
    active: Counter[tuple[str, int]] = Counter()
    for (subprotocol, state), number in pairs.items():
        if state in found:
            active[names.get(subprotocol - 1, ""), state] += number
    return active


def oldest_states(records: memoryview, states: list[int]) -> dict[int, int]:
    """Return since when the longest-lasting connection of each state word has been in it."""
    found = open_states(states)
    since = at.column(records, at.STATE_AT) if found else []
    return {state: min(compress(since, map(state.__eq__, states))) for state in found}


def live_state(word: int) -> str:
    """Return what `connections` calls the state of a record."""
    return "orphaned" if word == at.ORPHANED else state_label(word)


def graphql_state(subprotocol: str, word: int) -> str:
    """Return how far a connection has come in its GraphQL subprotocol, if it speaks one."""
    if subprotocol not in _SUBPROTOCOLS:
        return ""
    return _STATES.get(word, "")


def close_name(code: int) -> str:
    """Return a close code and its name, such as `4409 operation id in use`; 0 gives nothing."""
    if not code:
        return ""
    return f"{code} {catalog.CODE_NAMES.get(code, '')}".rstrip()
