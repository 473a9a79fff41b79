"""The segment that one worker writes, in a shared file or in memory of its own."""

from __future__ import annotations

import errno
import mmap
import os
import secrets
import threading
import time
from contextlib import suppress
from itertools import count

from . import layout as at
from .directory import SEGMENT_SUFFIX, Directory, try_lock
from .layout import BlockKind, Status
from .process import boot_id, namespace, start_ticks

FIRST_EXTENT = 64 * 1024
LARGEST_EXTENT = 4 * 1024 * 1024
BLOCK_STEP = 8  # words; so that what is left of an extent always has room for a block's head
MASK = (1 << 64) - 1


class Segment:
    """A growing sequence of words, written by the thread that made it and nobody else.

    No reader meets it before `publish`, so that what it starts with is there or nothing is.

    It grows by mapping further extents of the file, each twice the size of the one before:
    what has been handed out never moves, and a file of any size keeps few descriptors open.
    With no directory the memory is anonymous: the same words, for this process alone.
    Raises `OSError` (ENOSPC among others) where no room can be had, never SIGBUS.
    The directory is its own from then on: it is closed with the segment.
    """

    def __init__(self, directory: Directory | None = None) -> None:
        self.directory = directory
        self.uuid = secrets.randbits(128)
        self.name = f".{os.getpid()}-{self.uuid:032x}{SEGMENT_SUFFIX}"
        self._file = self._lock = self._slot = -1
        self._extents: list[mmap.mmap] = []
        self._size = self._used = 0
        self.header = self._tail = memoryview(b"").cast("Q")
        self._blocks = count()
        if directory is None:
            self._start()
        else:
            self._create(directory)

    def _create(self, directory: Directory) -> None:
        self._file = directory.open(self.name, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        try:
            # On an open of its own, so that a forked child can drop it by closing it.
            self._lock = directory.open(self.name, os.O_RDONLY)
            if try_lock(self._lock, exclusive=True) is not True:
                raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
            self._start()
        except BaseException:
            self.remove()
            raise

    def _start(self) -> None:
        words = self._extend(0)
        self.header, self._tail = words[: at.HEADER_WORDS], words[at.HEADER_WORDS :]
        words[at.FINGERPRINT_AT] = at.FINGERPRINT
        words[at.PID] = os.getpid()
        words[at.START_TICKS] = start_ticks(os.getpid())
        words[at.BOOT_HIGH], words[at.BOOT_LOW] = boot_id()
        words[at.PID_NAMESPACE] = namespace("pid")
        words[at.TIME_NAMESPACE] = namespace("time")
        words[at.UID] = os.geteuid() if hasattr(os, "geteuid") else 0
        words[at.UUID_HIGH], words[at.UUID_LOW] = self.uuid >> 64, self.uuid & MASK
        words[at.CREATED_AT] = time.monotonic_ns()
        words[at.CREATED_WALL] = time.time_ns()
        words[at.THREAD] = threading.get_native_id()
        words[at.STATUS] = Status.READY
        self._used = words[at.USED] = at.HEADER_WORDS
        words[at.MAGIC_AT] = at.MAGIC

    def _extend(self, words: int) -> memoryview:
        """Return a fresh extent with room for at least `words` words."""
        size = min(max(self._size, FIRST_EXTENT), LARGEST_EXTENT)
        size = max(size, -(-words * at.WORD // FIRST_EXTENT) * FIRST_EXTENT)
        if self._size + size > at.MAX_BYTES:  # no reader would take it
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        if self._file < 0:
            extent = mmap.mmap(-1, size)
        else:
            os.posix_fallocate(self._file, self._size, size)  # a full disk speaks up here
            extent = mmap.mmap(self._file, size, offset=self._size)
        self._extents.append(extent)
        self._size += size
        return memoryview(extent).cast("Q")

    def add_block(self, kind: BlockKind, words: int, name: str = "", owner: int = 0) -> Block:
        """Append and publish a block with room for at least `words` words of its own."""
        text = name.encode()[: at.MAX_NAME_BYTES]
        start = at.BLOCK_NAME + -(-len(text) // at.WORD)
        total = -(-(start + words) // BLOCK_STEP) * BLOCK_STEP
        if total > len(self._tail):
            extent = self._extend(total)
            # A block is never split: readers step over the rest of the extent before.
            self._publish(BlockKind.PADDING, len(self._tail))
            self._tail = extent
        block = self._tail[:total]
        block[at.BLOCK_NAME_BYTES], block[at.BLOCK_OWNER] = len(text), owner
        block.cast("B")[at.BLOCK_NAME * at.WORD :][: len(text)] = text
        self._publish(kind, total)
        return Block(next(self._blocks), block[start:])

    def _publish(self, kind: BlockKind, words: int) -> None:
        if words:
            self._tail[at.BLOCK_KIND], self._tail[at.BLOCK_WORDS] = kind, words
            self._tail = self._tail[words:]
            self._used += words
            self.header[at.USED] = self._used

    def publish(self) -> None:
        """Show the file to readers, under the lowest number that no living worker has."""
        if self.directory is not None:
            self.header[at.SLOT], self._slot = self.directory.take_slot()
            draft, self.name = self.name, self.name.removeprefix(".")
            self.directory.rename(draft, self.name)

    @property
    def shared(self) -> bool:
        """Whether other processes can read it."""
        return self.directory is not None

    def contents(self) -> bytes:
        """Return a copy of what a reader would find in the file."""
        whole = b"".join(memoryview(extent) for extent in self._extents)
        return whole[: self.header[at.USED] * at.WORD]

    def unlinked(self) -> bool:
        """Whether somebody removed the file, so that no reader sees what is written."""
        return self._file >= 0 and os.fstat(self._file).st_nlink == 0

    def close(self) -> None:
        """Say that the worker ended; what is in the segment stays to be read."""
        self.header[at.STATUS] = Status.CLOSED
        self.leave()

    def leave(self) -> None:
        """Close the descriptors, and remove what lies beside the file."""
        if self.directory is not None:
            with suppress(OSError):  # nobody asks where connections wait that are gone
                self.directory.remove(self.name, side_files_only=True)
        self.abandon()

    def remove(self) -> None:
        """Remove the file, which has counted nothing yet, and close the descriptors."""
        if self.directory is not None:
            with suppress(OSError):
                os.unlink(self.name, dir_fd=self.directory.fd)
        self.abandon()

    def abandon(self) -> None:
        """Close the descriptors and say nothing, as a forked child must: it is not the writer."""
        # The slot last: whoever has it next must not meet this worker alive.
        for fd in (self._lock, self._file, self._slot):
            if fd >= 0:
                with suppress(OSError):
                    os.close(fd)
        self._lock = self._file = self._slot = -1
        if self.directory is not None:
            self.directory.close()

    def forget(self) -> None:
        """Abandon it in a forked child: what it writes from now on is in memory of its own."""
        self.abandon()
        self.header = copied(self.header)
        self._tail = self.header[:0]  # the next block needs a new extent, and that is no file's


def copied(words: memoryview) -> memoryview:
    """Return the same words in memory that nobody else has."""
    return memoryview(bytearray(words)).cast("Q")


class Block:
    """A published block: its number among the segment's blocks, and its words."""

    __slots__ = ("number", "words")

    def __init__(self, number: int, words: memoryview) -> None:
        self.number = number
        self.words = words
