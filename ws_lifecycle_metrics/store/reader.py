"""Reads the segments of a service without locks, and trusts nothing that it reads."""

from __future__ import annotations

import logging
import os
import stat
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from ..labels import first_is, safe_label
from . import layout as at
from .directory import OUT_OF_MEANS, Directory, is_held
from .layout import NS, OPERATION_BLOCK_WORDS, ROUTE_BLOCK_WORDS, WORKER_BLOCK_WORDS, BlockKind
from .process import is_gone, is_here, namespace

MAX_BLOCKS = 1 << 17
SURELY_ALIVE = 2 * NS
"""Age of a beat up to which nobody asks whether there is a process."""
LEAST_WORDS: dict[int, int] = {
    BlockKind.ROUTE: ROUTE_BLOCK_WORDS,
    BlockKind.OPERATION: OPERATION_BLOCK_WORDS,
    BlockKind.WORKER: WORKER_BLOCK_WORDS,
}

logger = logging.getLogger("ws_lifecycle_metrics")


class BadSegment(Exception):  # noqa: N818  # a finding, not a failure of ours
    """A file that is no segment, or not one of ours; the text says what is wrong."""


class OtherVersion(BadSegment):
    """A segment that only another version of this package can read."""


@dataclass(slots=True)
class Contents:
    """A segment as it was read: the header and the blocks' words, all copies.

    `alive` is whether a process still holds the file; `routes` and `operations` map a block's
    number to its name and counters; `records` are blocks of records with their route's number.
    """

    name: str
    header: memoryview
    alive: bool
    worker: memoryview = field(default_factory=lambda: memoryview(b"").cast("Q"))
    routes: dict[int, tuple[str, memoryview]] = field(default_factory=dict)
    operations: dict[int, tuple[str, memoryview]] = field(default_factory=dict)
    subprotocols: dict[int, str] = field(default_factory=dict)
    records: list[tuple[int, memoryview]] = field(default_factory=list)
    _states: list[list[int]] = field(default_factory=list)

    def states(self) -> list[list[int]]:
        """Return the state words of each block of records."""
        if not self._states:  # with many connections it takes longest to get them from memory
            self._states = [at.column(records, at.STATE) for _, records in self.records]
        return self._states

    @property
    def uuid(self) -> int:
        """The identity of the segment, 128 bits."""
        return int(self.header[at.UUID_HIGH]) << 64 | int(self.header[at.UUID_LOW])


def decode(name: str, data: bytes | bytearray, alive: bool) -> Contents:
    """Return the contents of a segment's bytes; raises `BadSegment` for anything else."""
    words = memoryview(data)[: len(data) // at.WORD * at.WORD].cast("Q")
    used = check_header(words, len(words))
    contents = Contents(name, words[: at.HEADER_WORDS], alive)
    number = 0
    for kind, owner, text, values in _blocks(words[:used]):
        _take_block(contents, number, kind, owner, text, values)
        number += kind != BlockKind.PADDING
    if not contents.worker:
        raise BadSegment("without a worker's block")
    return contents


def check_header(words: memoryview, available: int) -> int:
    """Return how many of the `available` words are used; raises `BadSegment`."""
    if len(words) < at.HEADER_WORDS or words[at.MAGIC_AT] != at.MAGIC:
        raise BadSegment("not a segment")
    if words[at.FINGERPRINT_AT] != at.FINGERPRINT:
        raise OtherVersion("written by another version")
    used = int(words[at.USED])
    if not at.HEADER_WORDS <= used <= available:
        raise BadSegment("shorter than it says")
    return used


def _blocks(words: memoryview) -> Iterator[tuple[int, int, str, memoryview]]:
    position, end = at.HEADER_WORDS, len(words)
    for _ in range(MAX_BLOCKS):
        if position == end:
            return
        if end - position < at.BLOCK_NAME:
            break
        total = words[position + at.BLOCK_WORDS]
        length = words[position + at.BLOCK_NAME_BYTES]
        start = at.BLOCK_NAME + -(-length // at.WORD)
        if not start <= total <= end - position or length > at.MAX_NAME_BYTES:
            break
        block = words[position : position + total]
        text = bytes(block[at.BLOCK_NAME : start])[:length].decode("utf-8", "replace")
        yield block[at.BLOCK_KIND], block[at.BLOCK_OWNER], safe_label(text), block[start:]
        position += total
    raise BadSegment("blocks that overlap or end beyond the file")


def _take_block(
    contents: Contents, number: int, kind: int, owner: int, text: str, values: memoryview
) -> None:
    if len(values) < LEAST_WORDS.get(kind, 0):
        raise BadSegment(f"block {number} is too short")
    match kind:
        case BlockKind.RECORDS if owner in contents.routes:
            whole = len(values) // at.RECORD_WORDS * at.RECORD_WORDS
            contents.records.append((owner, values[:whole]))
        case BlockKind.ROUTE:
            contents.routes[number] = (text, values)
        case BlockKind.OPERATION:
            contents.operations[number] = (text, values)
        case BlockKind.WORKER:
            contents.worker = values
        case BlockKind.SUBPROTOCOL:
            contents.subprotocols[number] = text
        case BlockKind.PADDING:
            pass
        case _:
            raise BadSegment(f"block {number} is of no known kind")


class Reader:
    """Reads all segments of a directory; logs a file when it becomes bad, those of a kind at once.

    `skipped` are the bad files of the latest reading, each with what is wrong; `outdated` those
    among them that another version wrote.
    """

    def __init__(self) -> None:
        self.skipped: dict[str, str] = {}
        self.outdated: list[str] = []
        self._named: dict[str, str] = {}

    def read(self, directory: Directory) -> list[Contents]:
        """Return every segment that can be trusted; `skipped` says why others could not be.

        Raises `OSError` where this process is out of descriptors or memory: to leave out what
        is in order would look as if totals had fallen.
        """
        found: list[Contents] = []
        self.skipped, self.outdated = {}, []
        for name in directory.segments():
            try:
                found.append(_load(directory, name))
                self._named.pop(name, None)  # were it bad again, that would be news
            except FileNotFoundError:
                continue  # folded meanwhile
            except BadSegment as error:
                self.skipped[name] = str(error)
                if isinstance(error, OtherVersion):
                    self.outdated.append(name)
            except OSError as error:
                if error.errno in OUT_OF_MEANS:
                    raise
                self.skipped[name] = str(error.strerror)
        self._log_skipped(self.skipped)
        return found

    def skip(self, name: str, why: str) -> None:
        """Note that a file is left out, and log it if that is news."""
        self.skipped[name] = why
        self._log_skipped({name: why})

    def warn(self, what: str, why: str) -> None:
        """Log what is wrong with something, if that is news."""
        if self._is_news(what, why):
            logger.warning("%s %s", safe_label(what), why)

    def _log_skipped(self, skipped: Mapping[str, str]) -> None:
        """Log a line for each reason that is news, however many files it is of."""
        news: dict[str, list[str]] = {}
        for name, why in skipped.items():
            if self._is_news(name, why):
                news.setdefault(why, []).append(name)
        for why, names in news.items():
            logger.warning("%s skipped: %s", first_is(names), why)

    def _is_news(self, what: str, why: str) -> bool:
        known = self._named.get(what) == why
        self._named[what] = why
        return not known


def check(directory: Directory, name: str) -> memoryview:
    """Return a segment's header; raises `BadSegment` for one that is not to be read."""
    fd = directory.open(name, os.O_RDONLY | os.O_NONBLOCK)
    try:
        return _head(fd)
    finally:
        os.close(fd)


def _load(directory: Directory, name: str) -> Contents:
    # Not blocking: somebody may have put a FIFO there.
    fd = directory.open(name, os.O_RDONLY | os.O_NONBLOCK)
    try:
        alive = is_held(fd)
        used = int(_head(fd)[at.USED])
        data = _copy(fd, used * at.WORD)
    finally:
        os.close(fd)
    # The worker may have grown since: what was copied is as long as the first look said.
    memoryview(data).cast("Q")[at.USED] = used
    return decode(name, data, alive and not _was_outlived(memoryview(data).cast("Q")))


def _head(fd: int) -> memoryview:
    check_file(os.fstat(fd))
    words = memoryview(_copy(fd, at.HEADER_WORDS * at.WORD)).cast("Q")
    # The size after the head: a worker that grows makes room before it says so.
    check_header(words, check_file(os.fstat(fd)) // at.WORD)
    return words


def _was_outlived(header: memoryview) -> bool:
    """Whether the process is gone whose file is still held, by a child that was forked unseen."""
    silent = time.monotonic_ns() - header[at.HEARTBEAT_AT]
    # In another time namespace the kernel shifts what it says of a process's start.
    same_time = header[at.TIME_NAMESPACE] == namespace("time")
    return (
        not 0 <= silent < SURELY_ALIVE  # to ask each time would cost as much as to read
        and is_here(header)
        and is_gone(header[at.PID], header[at.START_TICKS] if same_time else 0)
    )


def _copy(fd: int, size: int) -> bytearray:
    """Read, not map: a file that somebody truncates must not end this process by SIGBUS."""
    data = bytearray(size)
    if os.preadv(fd, [data], 0) < size:
        raise BadSegment("shorter than it says")
    return data


def check_file(status: os.stat_result) -> int:
    """Return the size of a file that only this user can have written; raises `BadSegment`."""
    if not stat.S_ISREG(status.st_mode):
        raise BadSegment("not a regular file")
    if status.st_uid != os.geteuid():
        raise BadSegment(f"owned by user {status.st_uid}")
    if status.st_mode & 0o022:
        raise BadSegment(f"mode {stat.S_IMODE(status.st_mode):04o} lets others write")
    if status.st_size > at.MAX_BYTES:
        raise BadSegment(f"larger than {at.MAX_BYTES} bytes")
    return status.st_size
