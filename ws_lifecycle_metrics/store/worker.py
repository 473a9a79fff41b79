"""A worker's numbers: the routes, records and counters that one event loop writes."""

from __future__ import annotations

import logging
import sys
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
from .directory import Directory, DirectoryError
from .layout import (
    OPERATION_BLOCK_WORDS,
    ROUTE_BLOCK_WORDS,
    WORKER_BLOCK,
    WORKER_BLOCK_WORDS,
    BlockKind,
)
from .operations import Operations
from .reader import Reader
from .route import Route as Route
from .route import Words
from .writer import Block, Segment, copied

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
        self.left: dict[int, Any] = {}  # subscriptions whose connection has ended, by its serial
        self.loop: Any = None  # asyncio's, where other threads may leave a step
        self.served: Any = None  # what all HTTP scopes share
        self.lifespans = 0  # of servers on this loop that say when they shut down
        self.beats = False  # whether a heartbeat comes that publishes
        self.noted: dict[int, Any] = {}  # conversations with counts that are not written yet
        self.record_blocks: list[tuple[int, Words]] = []
        self.seen = 0  # connections that have a record now
        self._lacked = 0  # words for which there was no room, at most
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

    def serve(self) -> None:
        """Say that a server begins, with a loop of its own: what was told of one before is over."""
        self.lifespans = 0
        self.segment.header[at.DRAINING_SINCE] = 0

    def startup(self) -> None:
        """Note that the lifespan of a server on this loop begins."""
        self.lifespans += 1
        self.segment.header[at.DRAINING_SINCE] = 0

    def shutdown(self) -> None:
        """Note that such a lifespan ends: with the last one the worker drains."""
        self.lifespans -= 1
        if self.lifespans <= 0:
            self.drain()

    def drain(self) -> None:
        """Say that the server has begun to shut down."""
        if not self.segment.header[at.DRAINING_SINCE]:
            self.segment.header[at.DRAINING_SINCE] = time.monotonic_ns()

    @property
    def draining(self) -> bool:
        """Whether the server has begun to shut down."""
        return bool(self.segment.header[at.DRAINING_SINCE])

    def publish(self, now: int) -> None:
        """Write what conversations have counted since the latest beat; on its own thread."""
        while self.noted:  # also after a fault in one of them
            self.noted.popitem()[1].publish(now)

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

    def has_room(self) -> bool:
        """Whether one more connection may be seen; that some are not is logged once."""
        if self.seen < self.config.max_connections:
            return True
        self._note_full(f"max_connections={self.config.max_connections} is reached", sys.maxsize)
        return False

    def new_records(self, route_number: int, have: int) -> list[Words]:
        """Return fresh records for a route that has some; none at the memory's end."""
        wanted = min(max(FIRST_RECORDS, have), MOST_RECORDS)
        wanted = min(wanted, self.config.max_connections - self.seen)
        size = at.RECORD_WORDS
        block = self._add(BlockKind.RECORDS, wanted * size, owner=route_number)
        if block is None:
            return []
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
            block = self.segment.add_block(kind, words, name, owner)
        except OSError as error:
            self._note_full(str(error.strerror), words)
            return None
        if words >= self._lacked > 0:  # less may have fitted into what was left
            self._lacked = self.segment.header[at.FULL] = 0
        return block

    def _note_full(self, why: str, words: int) -> None:
        if not self.segment.header[at.FULL]:
            logger.warning("no room for more metrics, the rest is only counted: %s", why)
        self.segment.header[at.FULL] += 1
        self._lacked = max(self._lacked, words)

    def forget(self) -> None:
        """Write where nobody reads, in a forked child: the words are its parent's.

        What was running as the process forked may go on there: an exception that is not caught,
        such as that of `sys.exit()`, ends the parent's conversation a second time.
        """
        self.segment.forget()
        self.words, self.spare = copied(self.words), copied(self.spare)
        for route in self._routes.values():
            route.forget()
        for operation in self.operations.known():
            operation.forget()
        for conversation in self.live.values():
            conversation.forget()
        self.beats = False

    def release(self) -> None:
        """Let go of all that refers back to it, once its thread has ended and it is closed.

        Its memory and the descriptor of that then go with the last reference: a collection of
        garbage may be far away, and a test suite have ended many workers by then.
        """
        if not self.live and not self.left:
            self.watch = self.loop = self.served = None
            self._routes = {}
            self._route_cap = self._subprotocol_cap = Cap(0)
            self.operations = Operations(self.config, lambda _: None, int)

    def close(self) -> None:
        """Say that the worker ended, and put its counts into the archive."""
        # Its own descriptor: the segment's is closed, and with it the lock that says alive.
        path = self.segment.directory.path if self.segment.directory is not None else None
        try:
            self.publish(time.monotonic_ns())
        finally:
            self.segment.close()
        if path is not None:
            with suppress(DirectoryError, OSError), Directory(path) as directory:
                archive.fold(directory, self.reader)
