"""The lines that an application under test leaves behind: written at once, so a hang keeps them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..testing.recorder import Entry

JOURNAL = "WS_LIFECYCLE_CHECK_JOURNAL"
TARGET = "WS_LIFECYCLE_CHECK_TARGET"
MARK = b"check="
"""The query parameter that tells which run a connection belongs to."""


class Journal:
    """Appends lines to a file; each is one write, so that nothing waits in a buffer."""

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def write(self, run: str, entry: Entry) -> None:
        """Append an entry of a run."""
        line = {
            "run": run,
            "at": entry.at,
            "what": entry.what,
            "event": entry.event,
            "detail": dict(entry.detail),
            "rules": [rule.id for rule in entry.findings],
        }
        os.write(self._fd, json.dumps(line).encode() + b"\n")


def from_environment() -> Journal:
    """Return the journal that the runner named."""
    return Journal(os.environ.get(JOURNAL, os.devnull))


def run_of(scope: Mapping[str, Any]) -> str:
    """Return the run that a connection belongs to, from its query; empty if it has none."""
    query: bytes = scope.get("query_string") or b""
    _, _, mark = query.partition(MARK)
    return mark.partition(b"&")[0].decode("ascii", "replace")


class JournalReader:
    """Reads what was appended since the last look."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self.runs: dict[str, list[dict[str, Any]]] = {}

    def read(self, run: str) -> list[dict[str, Any]]:
        """Return all lines of a run so far; a line still being written waits for the next look."""
        with suppress(FileNotFoundError), self._path.open("rb") as file:
            file.seek(self._offset)
            whole, newline, _ = file.read().rpartition(b"\n")
            self._offset += len(whole) + len(newline)
            for line in whole.splitlines():
                entry = json.loads(line)
                self.runs.setdefault(entry["run"], []).append(entry)
        return self.runs.setdefault(run, [])
