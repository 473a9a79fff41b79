"""What one connection counts between two beats, and how it reaches the record.

Words and clocks cost more than all the rest that a message takes, so a busy connection does
without: its first event after a beat is written and timed at once, and so is whatever is rare or
changes the state. The others are counted in attributes, and written with the next beat.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from . import layout as at

if TYPE_CHECKING:
    from .worker import Worker

# Where tasks that outlive their conversation write; its handshake was counted.
VOID = memoryview(bytearray(at.RECORD_WORDS * at.WORD)).cast("Q")
VOID[at.ANSWERED_AT] = 1
_now = time.monotonic_ns


class Tally:
    """The counts of one connection; who inherits adds to them inline, where a call is too dear."""

    __slots__ = (
        "_is_noted",
        "_quick_receive",
        "_quick_send",
        "_received_binary",
        "_received_bytes",
        "_received_text",
        "_receives",
        "_receiving",
        "_sending",
        "_sends",
        "_sent_at",
        "_sent_binary",
        "_sent_bytes",
        "_sent_text",
        "_serial",
        "_timed",
        "_took",
        "_words",
        "_worker",
    )

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._serial = worker.connections = worker.connections + 1
        self._words = VOID
        # Whether plain messages may take the quick way; whether one can begin there now (None) or
        # is in flight on it (True, or since when). All others are counted below until they return.
        self._quick_receive = self._quick_send = self._is_noted = False
        self._receives: bool | None = False
        self._sends: bool | int | None = False
        self._receiving = self._sending = 0
        # Since the words were written last. Of sends on the quick way nobody knows how long one
        # took: as long as the latest that was timed. Once one was slow, all are timed until a
        # beat has passed without.
        self._received_text = self._received_binary = self._received_bytes = 0
        self._sent_text = self._sent_binary = self._sent_bytes = 0
        self._sent_at = self._took = self._timed = 0

    @property
    def worker(self) -> Worker:
        """Whose record it writes."""
        return self._worker

    def _beats(self) -> bool:
        """Have what is counted from now on written with the next beat; whether one comes."""
        if not self._is_noted and self._worker.beats:
            self._is_noted = True
            self._worker.noted[self._serial] = self
        return self._is_noted

    def _slow_receives(self) -> None:
        """Let events be received on the other way, and a pending call count as if it had been."""
        if self._receives:
            self._receiving = 1
        self._receives = False

    def _slow_sends(self) -> None:
        """Let events be sent on the other way, and a pending call count as if it had been."""
        if self._sends:
            self._sending = 1
            # Whenever it began, if that is not known, it was after the latest beat.
            self._sent_at = _now() if self._sends is True else self._sends
        self._sends = False

    def forget(self) -> None:
        """Write where nobody reads, in a forked child: the record is that of its parent."""
        self._words = VOID

    def publish(self, now: int) -> None:
        """Write what was counted since the last time into the record."""
        self._slow_receives()
        self._slow_sends()
        self._is_noted = False
        words = self._words
        words[at.RECEIVING], words[at.SENDING] = self._receiving, self._sending
        if self._received_text or self._received_binary:
            words[at.RECEIVED_AT] = now
            words[at.RECEIVED_BYTES] += self._received_bytes
            words[at.RECEIVED_TEXT] += self._received_text
            words[at.RECEIVED_BINARY] += self._received_binary
            self._received_text = self._received_binary = self._received_bytes = 0
        if self._sent_text or self._sent_binary:
            if not self._sending:
                self._sent_at = now
            words[at.SENT_BYTES] += self._sent_bytes
            words[at.SENT_NS] += (self._sent_text + self._sent_binary) * self._took
            words[at.SENT_TEXT] += self._sent_text
            words[at.SENT_BINARY] += self._sent_binary
            self._sent_text = self._sent_binary = self._sent_bytes = 0
        words[at.SENT_AT] = self._sent_at
        if self._timed:
            self._timed -= 1
