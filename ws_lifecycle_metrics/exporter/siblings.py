"""The other services of a directory: one process may serve several, each with a loop of its own."""

from __future__ import annotations

import os
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

from ..config import ExporterConfig, is_service_name
from ..store import layout as at
from ..store.directory import Directory, DirectoryError, service_path
from ..store.process import is_here
from ..store.reader import Contents, Reader
from ..watchdog.workers import Judge, serving


class Siblings:
    """Looks at the services beside that of `config`."""

    def __init__(self, config: ExporterConfig) -> None:
        self._own = service_path(config.directory, config.service)
        self._reader = Reader()

    def serve_in(self, pid: int) -> bool:
        """Whether a loop of another service is well in this process, or may be; raises OSError."""
        for name in os.listdir(self._own.parent):
            if name != self._own.name and is_service_name(name):
                same = [w for w in self._workers(self._own.parent / name) if _is_in(w, pid)]
                health = Judge().look(same, Counter(), time.monotonic_ns())
                if any(h.reason is None for h in serving(health)):
                    return True
        return False

    def _workers(self, place: Path) -> list[Contents]:
        with suppress(DirectoryError), Directory(place) as directory:  # else it is not this user's
            return self._reader.read(directory)
        return []


def _is_in(worker: Contents, pid: int) -> bool:
    return worker.alive and worker.header[at.PID] == pid and is_here(worker.header)
