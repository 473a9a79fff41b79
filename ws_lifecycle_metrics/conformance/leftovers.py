"""What must not outlive this program, however it ends: servers and their directories.

Each server has a process group of its own, so no signal of a terminal reaches it.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from typing import Any

SECONDS = 3.0
"""Seconds for a start that is under way, and for the directories to go."""

_starting = Lock()
_groups = set[int]()
_folders = set[Path]()


def spawned(argv: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
    """Start the leader of a process group, which is known from its first moment on.

    `options` are those of `subprocess.Popen`.
    """
    with _starting:
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, start_new_session=True, **options
        )
        _groups.add(process.pid)
    return process


def forget(pid: int) -> None:
    """Leave a group alone, since it has ended: from its leader's reaping on the id is another's."""
    _groups.discard(pid)


@contextmanager
def temporary_folder(prefix: str) -> Iterator[Path]:
    """Make a directory for a `with` block."""
    with _starting:
        made = TemporaryDirectory(prefix=prefix)
        path = Path(made.name)
        _folders.add(path)
    try:
        with made:
            yield path
    finally:
        _folders.discard(path)


def end_all() -> None:
    """Kill all groups and remove all directories; the program must end after it.

    Nothing can be started from now on: it may run while other threads are about to.
    """
    _starting.acquire(timeout=SECONDS)
    for group in tuple(_groups):
        with suppress(OSError):
            os.killpg(group, signal.SIGKILL)
    deadline = time.monotonic() + SECONDS
    # What is dying may still make a file.
    while any(map(_remains, tuple(_folders))) and time.monotonic() < deadline:
        time.sleep(0.02)


def _remains(folder: Path) -> bool:
    shutil.rmtree(folder, ignore_errors=True)
    return folder.exists()
