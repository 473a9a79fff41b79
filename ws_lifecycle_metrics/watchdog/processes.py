"""What the kernel says of processes and their sockets: Linux's /proc, or nothing.

Every question has an answer where there is no /proc, or none for this process: None.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ..store.process import stat_fields

_ESTABLISHED, _CLOSE_WAIT, _LISTEN = "01", "08", "0A"


@dataclass(frozen=True, slots=True)
class Process:
    """A process: its state as ps writes it, its parent and when it started, in ticks."""

    state: str
    parent: int
    start_ticks: int
    uid: int = 0


@dataclass(frozen=True, slots=True)
class Sockets:
    """The TCP sockets of a process; `connections` are all that have a peer, in any state."""

    listening: int = 0
    accept_queue: int = 0
    connections: int = 0
    states: dict[str, int] = field(default_factory=dict)


class ProcessTable:
    """Reads below `root`, so that tests can bring their own."""

    def __init__(self, root: Path = Path("/proc")) -> None:
        self._root = root

    def process(self, pid: int) -> Process | None:
        """Return a process, or None if there is none or nobody can tell."""
        try:
            folder = self._root / str(pid)
            uid = folder.stat().st_uid
            fields = stat_fields((folder / "stat").read_bytes())
            return Process(fields[0].decode(), int(fields[1]), int(fields[19]), uid)
        except (OSError, ValueError, IndexError):
            return None

    def schedule(self, pid: int, thread: int) -> tuple[int, int] | None:
        """Return the ns for which a thread has run, and has waited for a processor."""
        try:
            text = (self._root / f"{pid}/task/{thread}/schedstat").read_text()
            run, wait, _ = map(int, text.split())
            return run, wait
        except (OSError, ValueError):
            return None

    def sockets(self, pids: list[int]) -> dict[int, Sockets]:
        """Return the TCP sockets of processes; those that cannot be read are left out."""
        tables: dict[int, dict[int, tuple[str, int]]] = {}
        found = {}
        for pid in pids:
            try:
                space = (self._root / f"{pid}/ns/net").stat().st_ino
                if space not in tables:  # one reading for all who share it
                    tables[space] = dict(self._table(pid))
                inodes = set(self._inodes(pid))
            except OSError:
                continue
            table = tables[space]
            found[pid] = _count([table[inode] for inode in inodes & table.keys()])
        return found

    def _inodes(self, pid: int) -> Iterator[int]:
        with os.scandir(self._root / f"{pid}/fd") as entries:
            for entry in entries:
                try:
                    target = os.readlink(entry.path)
                except OSError:
                    continue  # closed meanwhile
                if target.startswith("socket:["):
                    yield int(target[8:-1])

    def _table(self, pid: int) -> Iterator[tuple[int, tuple[str, int]]]:
        """Yield inode, state and receive queue: of a listening socket, those not accepted."""
        for name in ("tcp", "tcp6"):
            try:
                lines = (self._root / f"{pid}/net/{name}").read_text().splitlines()[1:]
            except FileNotFoundError:
                continue  # a kernel without IPv6
            for line in lines:
                row = line.split()
                yield int(row[9]), (row[3], int(row[4].partition(":")[2], 16))


def _count(sockets: list[tuple[str, int]]) -> Sockets:
    states = Counter(state for state, _ in sockets)
    return Sockets(
        listening=states[_LISTEN],
        accept_queue=sum(queue for state, queue in sockets if state == _LISTEN),
        connections=sum(states.values()) - states[_LISTEN],
        states={"established": states[_ESTABLISHED], "close_wait": states[_CLOSE_WAIT]},
    )
