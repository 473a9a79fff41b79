"""What tells a process apart from a later one with the same pid."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path

from . import layout as at


@functools.cache
def boot_id() -> tuple[int, int]:
    """Return the two halves of the kernel's boot id, or zeros where there is none."""
    try:
        text = Path("/proc/sys/kernel/random/boot_id").read_text().strip().replace("-", "")
        return int(text[:16], 16), int(text[16:], 16)
    except (OSError, ValueError):
        return 0, 0


def namespace(kind: str) -> int:
    """Return the inode of this process's namespace of a kind ("pid", "time"), or 0."""
    try:
        return os.stat(f"/proc/self/ns/{kind}").st_ino
    except OSError:
        return 0


def stat_fields(stat: bytes) -> list[bytes]:
    """Return what stands in a process's `stat` from its state on; ValueError if nothing does."""
    # The name, in parentheses, may hold anything; the fields are counted from its end.
    return stat[stat.rindex(b")") + 2 :].split()


def start_ticks(pid: int) -> int:
    """Return when a process started, in clock ticks since boot, or 0 if it cannot be told."""
    try:
        return int(stat_fields(Path(f"/proc/{pid}/stat").read_bytes())[19])
    except (OSError, ValueError, IndexError):
        return 0


def is_gone(pid: int, ticks: int) -> bool:
    """Whether a process that started at `ticks` has ended; False where nobody can tell."""
    try:
        os.kill(pid, 0)  # not by /proc, which may hide what is not ours
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        pass
    return bool(ticks) and start_ticks(pid) not in (0, ticks)


def is_here(header: memoryview) -> bool:
    """Whether the pid in a segment's header means the same process to us."""
    return (header[at.BOOT_HIGH], header[at.BOOT_LOW]) == boot_id() and (
        header[at.PID_NAMESPACE] == namespace("pid") != 0
    )


def at_forked_exit(function: Callable[[], None]) -> None:
    """Call `function` at the end of a process that multiprocessing forked: it runs no `atexit`."""
    util = sys.modules.get("multiprocessing.util")
    if util is not None:
        util.Finalize(None, function, exitpriority=0)
