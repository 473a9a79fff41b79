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
from typing import Any

from .. import catalog
from ..config import Config
from ..labels import OTHER, Cap
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
from .operations import Operations
from .process import at_forked_exit
from .reader import Contents, Reader, decode
from .route import Route as Route
from .route import Words
from .totals import Totals, add_segment
from .writer import Block, Segment

Place = tuple[str, str]
"""Directory and service."""

FIRST_RECORDS = 64
MOST_RECORDS = 2048
MOST_FAULTS = 100
"""After so many faults of this package's own, a worker observes no more."""

_OVERFLOW = WORKER_BLOCK[catalog.LABEL_OVERFLOW.name].offsets
_SPANS_DROPPED = WORKER_BLOCK[catalog.SPANS_DROPPED.name].offsets[()]
_INTERNAL_ERRORS = WORKER_BLOCK[catalog.INTERNAL_ERRORS.name].offsets[()]

logger = logging.getLogger("ws_lifecycle_metrics")


class Worker:
    """The words of one event loop; written by its thread alone.

    With no directory (`None`) the numbers stay in this process.
    """

    def __init__(self, config: Config, directory: Directory | None) -> None:
        self.config = config
        self.thread = threading.current_thread()
        self.segment = Segment(directory)
        self.reader = Reader()
        self.words = self.segment.add_block(BlockKind.WORKER, WORKER_BLOCK_WORDS).words
        self.internal_errors = 0
        self.connections = 0
        # The watchdog's: conversations that run by serial, blocks of records by route's number.
        self.watch: Any = None
        self.live: dict[int, Any] = {}
        self.record_blocks: list[tuple[int, Words]] = []
        self._records = 0
        self._routes: dict[str, Route] = {}
        self._subprotocols: dict[str, int] = {}
        self._route_cap = self._cap("http_route", config.max_routes, config.routes)
        self._subprotocol_cap = self._cap(
            "subprotocol", config.max_subprotocols, config.subprotocols
        )
        self.operations = Operations(
            config,
            lambda name: self._add(BlockKind.OPERATION, OPERATION_BLOCK_WORDS, name),
            lambda: self.count_overflow("graphql_operation_name"),
        )
        self.posted: deque[Callable[[], object]] = deque()  # steps that other threads left
        number = self._start_other()
        # What is counted where no room is left, of any route.
        self.spare = self.segment.add_block(BlockKind.RECORDS, at.RECORD_WORDS, owner=number).words
        for name in config.routes:
            self.route(name)

    def _start_other(self) -> int:
        block = self.segment.add_block(BlockKind.ROUTE, ROUTE_BLOCK_WORDS, OTHER)
        self._routes[OTHER] = Route(self, OTHER, block)
        return block.number

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

    def count_dropped_span(self) -> None:
        """Count a span that was not made."""
        self.words[_SPANS_DROPPED] += 1

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

    def routes(self) -> dict[int, Route]:
        """Return the routes by the number of their block."""
        return {route.number: route for route in self._routes.values()}

    def subprotocol(self, name: str) -> int:
        """Return what a record says of a subprotocol: its block's number + 1; 0 is none."""
        name = self._subprotocol_cap.fold(name)
        number = self._subprotocols.get(name)
        if number is None:
            block = self._add(BlockKind.SUBPROTOCOL, 0, name)
            number = self._subprotocols[name] = 0 if block is None else block.number + 1
        return number

    def is_here(self) -> bool:
        """Whether the caller runs in the thread that may write the words."""
        return self.thread.ident == threading.get_ident()

    def new_records(self, route_number: int, have: int) -> list[Words]:
        """Return fresh records for a route that has some; none at the cap or the memory's end."""
        wanted = min(max(FIRST_RECORDS, have), MOST_RECORDS)
        wanted = min(wanted, self.config.max_connections - self._records)
        size = at.RECORD_WORDS
        if wanted <= 0:
            self._note_full(f"max_connections={self.config.max_connections} is reached")
            return []
        block = self._add(BlockKind.RECORDS, wanted * size, owner=route_number)
        if block is None:
            return []
        self._records += wanted
        words = block.words
        self.record_blocks.append((route_number, words[: wanted * size]))
        # From the last to the first, so that they are taken in the order in which they lie.
        return [words[i * size : (i + 1) * size] for i in reversed(range(wanted))]

    def new_sum(self, route_number: int) -> Words | None:
        """Return a record for what a route's unseen connections count; None without room."""
        block = self._add(BlockKind.RECORDS, at.RECORD_WORDS, owner=route_number)
        return None if block is None else block.words

    def _add(self, kind: BlockKind, words: int, name: str = "", owner: int = 0) -> Block | None:
        try:
            return self.segment.add_block(kind, words, name, owner)
        except OSError as error:
            self._note_full(str(error.strerror))
            return None

    def _note_full(self, why: str) -> None:
        if not self.segment.header[at.FULL]:
            logger.warning("no room for more metrics, the rest is only counted: %s", why)
        self.segment.header[at.FULL] += 1

    def close(self) -> None:
        """Say that the worker ended, and put its counts into the archive."""
        # Its own descriptor: the segment's is closed, and with it the lock that says alive.
        path = self.segment.directory.path if self.segment.directory is not None else None
        self.segment.close()
        if path is not None:
            with suppress(DirectoryError, OSError), Directory(path) as directory:
                archive.fold(directory, self.reader)


class _Workers(threading.local):
    def __init__(self) -> None:
        self.by_place: dict[Place, Worker] = {}


_here = _Workers()
_all: list[Worker] = []
_ended: dict[Place, Totals] = {}
"""What workers have counted that ended and that only this process could read."""
_lock = threading.Lock()
"""Held while the lists change, which no running worker waits for."""


def current(config: Config) -> Worker:
    """Return the worker of this thread for the service of `config`; the first call makes it.

    A thread runs one event loop at a time, whatever the library, so it stands for the loop.
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
    return [worker for worker in tuple(_all) if _place(worker) == place]


def unshared(config: Config) -> tuple[Totals, list[Contents]]:
    """Return what only this process can read: the totals of ended workers, living segments."""
    with _lock:
        living = [
            decode(worker.segment.name, worker.segment.contents(), alive=True)
            for worker in local_workers(config)
            if not worker.segment.shared
        ]
        return dict(_ended.get((config.directory, config.service), {})), living


def own(config: Config) -> tuple[list[Contents], bool]:
    """Return the segments of this process's workers, and whether others can read them all."""
    with _lock:
        workers = local_workers(config)
        segments = [decode(w.segment.name, w.segment.contents(), alive=True) for w in workers]
        return segments, all(worker.segment.shared for worker in workers)


def _place(worker: Worker) -> Place:
    return worker.config.directory, worker.config.service


def _start(config: Config, place: Place) -> Worker:
    with _lock:
        _close_ended()
        try:
            worker = _start_shared(config)
        except (DirectoryError, OSError) as error:
            logger.warning("metrics stay in this process, no other can read them: %s", error)
            worker = _start_unshared(config)
        _here.by_place[place] = worker
        _all.append(worker)
        at_forked_exit(_close_all)
        return worker


def _start_shared(config: Config) -> Worker:
    directory = Directory(service_path(config.directory, config.service), create=True)
    try:
        worker = Worker(config, directory)
    except BaseException:
        directory.close()
        raise
    try:
        worker.segment.publish()
    except BaseException:
        worker.segment.remove()
        raise
    archive.fold(directory, worker.reader)
    return worker


def _start_unshared(config: Config) -> Worker:
    worker = Worker(config, None)
    taken = {other.segment.header[at.SLOT] for other in _all if not other.segment.shared}
    worker.segment.header[at.SLOT] = next(n for n in range(len(taken) + 1) if n not in taken)
    return worker


def renew(worker: Worker) -> Worker:
    """Give this thread a new worker in place of one whose file was removed."""
    logger.warning("the file of the metrics was removed: a new one begins at 0")
    with _lock:
        worker.segment.abandon()
        worker.watch = None
        _all[:] = [other for other in _all if other is not worker]
    new = _start(worker.config, _place(worker))
    new.connections = worker.connections
    return new


def _close_ended() -> None:
    """Close the segments of threads that ended, as test clients start one for each session."""
    for worker in [w for w in _all if not w.thread.is_alive()]:
        _all.remove(worker)
        if not worker.segment.shared:
            contents = decode(worker.segment.name, worker.segment.contents(), alive=False)
            add_segment(_ended.setdefault(_place(worker), {}), contents)
        worker.close()


def _close_all() -> None:
    for worker in _all:
        worker.close()
    _all.clear()


def _forget_all() -> None:
    """In a forked child: the segments are the parent's, and so are their locks."""
    global _here, _lock
    for worker in _all:
        with suppress(OSError):
            worker.segment.abandon()
    _all.clear()
    _ended.clear()
    _here, _lock = _Workers(), threading.Lock()


atexit.register(_close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)
