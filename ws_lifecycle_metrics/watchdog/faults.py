"""The opt-in timer that writes all stacks even when the GIL is held, by `faulthandler`.

There is one such timer a process, and it is Python's own: whoever else uses it takes it away.
"""

from __future__ import annotations

import atexit
import faulthandler
import os
from contextlib import suppress
from typing import ClassVar

from ..store.worker import Worker
from .sidefile import FAULTS, MOST_BYTES, side_name


class Timer:
    """Re-armed by every beat; it goes off when the loop has been stuck."""

    _armed: ClassVar[Timer | None] = None
    """Who armed it last: no other may take it away."""
    _forks: ClassVar[bool] = False
    """Whether the process is about to fork: until then nobody arms it."""

    def __init__(self, worker: Worker) -> None:
        self._seconds = worker.config.stuck_loop_blocked
        self._exit = worker.config.faulthandler_exit
        self._file = -1
        segment = worker.segment
        if segment.directory is not None:
            name = side_name(segment.name, FAULTS)
            with suppress(OSError):
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
                self._file = segment.directory.open(name, flags)

    def rearm(self) -> None:
        """Begin to wait anew."""
        if self._file < 0 or Timer._forks:
            return
        # So that a worker which hangs every now and then fills no disk.
        if os.fstat(self._file).st_size > MOST_BYTES // 2:
            os.ftruncate(self._file, 0)
        faulthandler.dump_traceback_later(self._seconds, file=self._file, exit=self._exit)
        Timer._armed = self

    def rest(self) -> None:
        """Wait for no beat until the next one: the loop has stopped."""
        if Timer._armed is self:
            Timer._armed = None
            faulthandler.cancel_dump_traceback_later()

    def close(self) -> None:
        """Wait no more; the file stays."""
        self.rest()
        if self._file >= 0:
            with suppress(OSError):  # the application may have closed what is not its own
                os.close(self._file)
            self._file = -1

    # The timer is a thread, which a forked child has not: Python would wait for it there, for good,
    # as soon as it takes the timer away, and at the latest at the end.

    @classmethod
    def before_fork(cls) -> None:
        """Take the timer away for the time of a fork."""
        cls._forks = True
        if cls._armed is not None:
            faulthandler.cancel_dump_traceback_later()

    @classmethod
    def after_fork(cls) -> None:
        """Begin to wait anew, in the parent."""
        cls._forks = False
        if cls._armed is not None:
            with suppress(OSError):  # the application may have closed what is not its own
                cls._armed.rearm()

    @classmethod
    def forget(cls) -> None:
        """Wait for no loop of the parent's, in the child."""
        cls._forks, cls._armed = False, None


# A process that ends takes its time, and no loop beats meanwhile.
atexit.register(faulthandler.cancel_dump_traceback_later)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=Timer.before_fork,
        after_in_parent=Timer.after_fork,
        after_in_child=Timer.forget,
    )
