"""Which series a service has before anything is counted, and what is computed from its words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from .. import catalog
from ..catalog import METRICS, Metric
from ..labels import OTHER
from . import layout as at
from .layout import OPERATION_BLOCK, GraphQLState
from .reader import Contents
from .totals import Totals, column, state_label

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


def is_open(state: int) -> bool:
    """Whether the state word of a record is that of a connection that has not ended."""
    return bool(state) and state != at.ORPHANED


def open_connections(worker: Contents) -> int:
    """Return how many connections of a worker have not ended."""
    return sum(is_open(state) for _, block in worker.records for state in column(block, at.STATE))


def orphans(workers: Iterable[Contents]) -> int:
    """Return how many subscriptions go on although their connection has ended."""
    return sum(
        running
        for worker in workers
        for _, records in worker.records
        for state, running in zip(
            column(records, at.STATE), column(records, at.OPERATIONS), strict=True
        )
        if state == at.ORPHANED
    )


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
