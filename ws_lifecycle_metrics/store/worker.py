"""A worker's numbers: the routes, records and counters that one event loop writes."""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from .. import catalog
from ..config import Config
from ..labels import OTHER, Cap, safe_label
from . import archive
from . import layout as at
from .directory import Directory, DirectoryError, service_path
from .layout import (
    OPERATION_BLOCK_WORDS,
    ROUTE_BLOCK_WORDS,
    WORKER_BLOCK,
    WORKER_BLOCK_WORDS,
    BlockKind,
)
from .operations import ANONYMOUS, Operation
from .reader import Reader
from .writer import Block, Segment

Words = memoryview

FIRST_RECORDS = 64
MOST_RECORDS = 2048
MOST_FAULTS = 100
"""After so many faults of this package's own, a worker observes no more."""

_OVERFLOW = WORKER_BLOCK[catalog.LABEL_OVERFLOW.name].offsets
_INTERNAL_ERRORS = WORKER_BLOCK[catalog.INTERNAL_ERRORS.name].offsets[()]

logger = logging.getLogger("ws_lifecycle_metrics")


class Route:
    """The counters of one route and the pool of its connections' records."""

    __slots__ = ("_free", "_number", "_sum", "_worker", "name", "words")

    def __init__(self, worker: Worker, name: str, block: Block) -> None:
        self.name = name
        self.words = block.words
        self._worker = worker
        self._number = block.number
        self._free: list[Words] = []
        self._sum: Words | None = None

    def take(self) -> Words:
        """Return a free record; beyond the cap or with no room, one that no reader sees."""
        if not self._free:
            self._free = self._worker.new_records(self._number)
            if self._free and self._sum is None:
                self._sum = self._free.pop()
        if self._free:
            return self._free.pop()
        return memoryview(bytearray(at.RECORD_WORDS * at.WORD)).cast("Q")

    def give_back(self, record: Words) -> None:
        """Free a record; what one that no reader saw has counted goes to one that is seen."""
        record[at.STATE] = 0
        if type(record.obj) is not bytearray:
            self._free.append(record)
        elif self._sum is not None:
            for word in at.COUNTS:
                self._sum[word] += record[word]


class Worker:
    """The words of one event loop; written by its thread alone.

    With no directory (`None`) the numbers stay in this process.
    """

    def __init__(self, config: Config, directory: Directory | None) -> None:
        self.config = config
        self.thread = threading.current_thread()
        self.segment = Segment(directory)
        self.words = self.segment.add_block(BlockKind.WORKER, WORKER_BLOCK_WORDS).words
        self.internal_errors = 0
        self.connections = 0
        self._records = 0
        self._routes: dict[str, Route] = {}
        self._subprotocols: dict[str, int] = {}
        self._route_cap = self._cap("http_route", config.max_routes, config.routes)
        self._subprotocol_cap = self._cap(
            "subprotocol", config.max_subprotocols, config.subprotocols
        )
        # Beside the configured ones: no client's name may take the place of having none.
        reserved = (ANONYMOUS, *config.operations)
        self._operations: dict[str, Operation] = {}
        self._operation_cap = self._cap(
            "graphql_operation_name", config.max_operations + 1, reserved
        )
        # Steps that other threads leave for this one; to append is atomic and never waits.
        self.posted: deque[Callable[[], object]] = deque()
        for name in (OTHER, *config.routes):
            self.route(name)

    def _cap(self, label: str, limit: int, reserved: tuple[str, ...]) -> Cap:
        return Cap(limit, reserved, lambda: self.count_overflow(label))

    def count_overflow(self, label: str) -> None:
        """Count a value of a label that found no place."""
        self.words[_OVERFLOW[(label,)]] += 1

    def count_internal_error(self) -> None:
        """Count a fault of this package."""
        self.internal_errors += 1
        self.words[_INTERNAL_ERRORS] = self.internal_errors
        if self.internal_errors == MOST_FAULTS:
            self.switch_off()

    def switch_off(self) -> None:
        """Say that this worker's middleware observes no more."""
        self.segment.header[at.SWITCHED_OFF_SINCE] = time.monotonic_ns()

    def drain(self) -> None:
        """Say that the server has begun to shut down."""
        if not self.segment.header[at.DRAINING_SINCE]:
            self.segment.header[at.DRAINING_SINCE] = time.monotonic_ns()

    @property
    def draining(self) -> bool:
        """Whether the server has begun to shut down."""
        return bool(self.segment.header[at.DRAINING_SINCE])

    def route(self, template: str | None) -> Route:
        """Return the route of a template; beyond the cap or with no room, of `other`."""
        route = self._routes.get(template) if template is not None else self._routes[OTHER]
        if route is not None:
            return route
        name = self._route_cap.fold(template)
        route = self._routes.get(name)
        if route is None:
            block = self._add(BlockKind.ROUTE, ROUTE_BLOCK_WORDS, name)
            if block is None:
                self.count_overflow("http_route")
                return self._routes[OTHER]
            route = self._routes[name] = Route(self, name, block)
        return route

    def subprotocol(self, name: str) -> int:
        """Return what a record says of a subprotocol: its block's number + 1; 0 is none."""
        name = self._subprotocol_cap.fold(name)
        number = self._subprotocols.get(name)
        if number is None:
            block = self._add(BlockKind.SUBPROTOCOL, 0, name)
            number = self._subprotocols[name] = 0 if block is None else block.number + 1
        return number

    def operation(self, name: object, *, admit: bool = True) -> Operation | None:
        """Return the counters of a GraphQL operation name; beyond the cap those of `other`.

        With `admit=False` a name that is not known yet takes no place and goes to `other`.
        None where not even that had room.
        """
        known = self._operations.get(name) if type(name) is str else None
        if known is not None:
            return known
        if not self._operations:  # on first use: most applications serve no GraphQL
            for reserved in (OTHER, *self.config.operations):
                self._add_operation(reserved)
        label = self._operation_cap.fold(name) if admit else safe_label(name)
        known = self._operations.get(label)
        if known is None and admit:
            known = self._add_operation(label)
        return known or self._operations.get(OTHER)

    def _add_operation(self, name: str) -> Operation | None:
        block = self._add(BlockKind.OPERATION, OPERATION_BLOCK_WORDS, safe_label(name))
        if block is None:
            self.count_overflow("graphql_operation_name")
            return None
        operation = self._operations[safe_label(name)] = Operation(name, block)
        return operation

    def is_here(self) -> bool:
        """Whether the caller runs in the thread that may write the words."""
        return self.thread.ident == threading.get_ident()

    def new_records(self, route_number: int) -> list[Words]:
        """Return fresh records for a route; none where the cap or the memory's end is reached."""
        wanted = min(max(FIRST_RECORDS, self._records), MOST_RECORDS)
        wanted = min(wanted, self.config.max_connections - self._records)
        size = at.RECORD_WORDS
        block = None
        if wanted > 0:
            block = self._add(BlockKind.RECORDS, wanted * size, owner=route_number)
        if block is None:
            self.count_overflow("connection")
            return []
        self._records += wanted
        words = block.words
        # From the last to the first, so that they are taken in the order in which they lie.
        return [words[i * size : (i + 1) * size] for i in reversed(range(wanted))]

    def _add(self, kind: BlockKind, words: int, name: str = "", owner: int = 0) -> Block | None:
        try:
            return self.segment.add_block(kind, words, name, owner)
        except OSError as error:
            if not self.segment.header[at.FULL]:
                logger.warning("no room for more metrics: %s", error.strerror)
            self.segment.header[at.FULL] += 1
            return None


class _Workers(threading.local):
    def __init__(self) -> None:
        self.by_place: dict[tuple[str, str], Worker] = {}


_here = _Workers()
_all: list[Worker] = []


def current(config: Config) -> Worker:
    """Return the worker of this thread for the service of `config`; the first call makes it.

    A thread runs one event loop at a time, whatever the library (asyncio, trio), so the
    thread stands for the loop.
    """
    place = (config.directory, config.service)
    worker = _here.by_place.get(place)
    return worker if worker is not None else _start(config, place)


def existing(config: Config) -> Worker | None:
    """Return the worker of this thread, or None where no scope has come yet."""
    return _here.by_place.get((config.directory, config.service))


def local_workers(config: Config) -> list[Worker]:
    """Return the workers of this process for the service of `config`, in any thread."""
    place = (config.directory, config.service)
    return [w for w in tuple(_all) if (w.config.directory, w.config.service) == place]


def _start(config: Config, place: tuple[str, str]) -> Worker:
    _close_ended()
    path = service_path(config.directory, config.service)
    try:
        directory = Directory(path, create=True)
        worker = Worker(config, directory)
        _choose_slot(worker.segment, directory)
        archive.fold(directory)
    except (DirectoryError, OSError) as error:
        logger.warning("metrics stay in this process, no other can read them: %s", error)
        worker = Worker(config, None)
        worker.segment.header[at.SLOT] = 0
    _here.by_place[place] = worker
    _all.append(worker)
    return worker


def _choose_slot(segment: Segment, directory: Directory) -> None:
    """Take the lowest number that no living worker has, as its label for all its life.

    There is no lock that a stopped process could keep: each takes a number, then looks
    whether another took the same, and the one with the higher uuid yields.
    """
    reader = Reader()
    for _ in range(20):
        taken = {
            other.header[at.SLOT]: other.uuid
            for other in reader.read(directory)
            if other.alive and other.uuid != segment.uuid
        }
        slot = segment.header[at.SLOT]
        if slot != at.NO_SLOT and taken.get(slot, segment.uuid) >= segment.uuid:
            return
        segment.header[at.SLOT] = next(n for n in range(len(taken) + 1) if n not in taken)


def _close_ended() -> None:
    """Close the segments of threads that ended, as test clients start one for each session."""
    for worker in [w for w in tuple(_all) if not w.thread.is_alive()]:
        worker.segment.close()
        _all.remove(worker)


def _close_all() -> None:
    for worker in _all:
        worker.segment.close()
    _all.clear()


def _forget_all() -> None:
    """In a forked child: the segments are the parent's, and so are their locks."""
    global _here
    for worker in _all:
        with suppress(OSError):
            worker.segment.abandon()
    _all.clear()
    _here = _Workers()


atexit.register(_close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)
