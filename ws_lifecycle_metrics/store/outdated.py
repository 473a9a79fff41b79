"""Segments that workers of another version left: nobody can read them, and memory is dear."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable
from contextlib import suppress

from ..labels import first_is
from .directory import Directory, try_lock

KEPT_SECONDS = 24 * 3600
"""Age up to which they stay: who goes back to the other version finds its totals again."""

logger = logging.getLogger("ws_lifecycle_metrics")


def remove(directory: Directory, names: Iterable[str]) -> None:
    """Remove those segments whose workers are gone, once they are old, and log it in one line."""
    removed: list[str] = []
    for name in names:
        with suppress(OSError):
            if _is_left(directory, name):
                directory.remove(name)
                removed.append(name)
    if removed:
        logger.warning(
            "%s removed: workers of another version left them more than a day ago",
            first_is(removed),
        )


def _is_left(directory: Directory, name: str) -> bool:
    fd = directory.open(name, os.O_RDONLY | os.O_NONBLOCK)
    try:
        # A segment gets a new time when it grows, hence a living worker's may be old, too.
        old = time.time() - os.fstat(fd).st_mtime > KEPT_SECONDS
        return old and try_lock(fd, exclusive=True) is True
    finally:
        os.close(fd)
