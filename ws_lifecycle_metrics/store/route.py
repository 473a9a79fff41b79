"""A route's counters, and the pool of records that its connections use in turn."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import layout as at
from .writer import Block, copied

if TYPE_CHECKING:
    from .worker import Worker

Words = memoryview


class Route:
    """The counters of one route and the pool of its connections' records."""

    __slots__ = ("_free", "_records", "_sum", "_worker", "name", "number", "words")

    def __init__(self, worker: Worker, name: str, block: Block) -> None:
        self.name = name
        self.words = block.words
        self._worker = worker
        self.number = block.number
        self._records = 0
        self._free: list[Words] = []
        self._sum: Words | None = None

    def take(self) -> Words:
        """Return a free record; beyond the cap or with no room, one that no reader sees."""
        worker = self._worker
        if worker.has_room():
            if not self._free:
                self._free = worker.new_records(self.number, self._records)
                self._records += len(self._free)
            if self._free:
                worker.seen += 1
                return self._free.pop()
        return memoryview(bytearray(at.RECORD_WORDS * at.WORD)).cast("Q")

    def give_back(self, record: Words) -> None:
        """Free a record; what one that no reader saw has counted goes to one that is seen."""
        record[at.STATE] = 0
        if type(record.obj) is not bytearray:
            self._worker.seen -= 1
            self._free.append(record)
            return
        if self._sum is None:
            self._sum = self._worker.new_sum(self.number)
        total = self._worker.spare if self._sum is None else self._sum
        for word in at.COUNTS:
            total[word] += record[word]

    def forget(self) -> None:
        """Write where nobody reads, in a forked child."""
        self.words, self._free, self._sum = copied(self.words), [], None
