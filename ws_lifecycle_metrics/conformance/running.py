"""The servers that this user runs just now, one a tree of processes."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from ..watchdog.processes import ProcessTable

SERVERS = frozenset({"granian", "uvicorn", "hypercorn", "daphne", "gunicorn"})
CLICK_TRUE = frozenset({"1", "true", "t", "yes", "y", "on"})
"""How a switch is turned on in the environment of a program that uses click, as Granian does."""


def serving_processes() -> Iterator[tuple[str, list[str]]]:
    """Yield the servers, by name and pid, with their arguments' base names.

    What a server reads from its environment stands before what was typed: the later one counts.
    A server's workers have its arguments; they are the same server.
    """
    parents, servers = dict[int, int](), dict[int, tuple[str, list[str]]]()
    table = ProcessTable()
    for folder in Path("/proc").glob("[0-9]*"):
        pid = int(folder.name)
        process = table.process(pid)
        if process is None:
            continue
        parents[pid] = process.parent
        if process.uid != os.geteuid():
            continue
        try:
            words = folder.joinpath("cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue  # it ended while it was looked at
        command = [word.rpartition("/")[2] for word in words if word]
        name = next((word for word in command[:4] if word in SERVERS), None)
        if name is not None and command[0].startswith(("python", name)):
            at = command.index(name) + 1
            servers[pid] = name, [*command[:at], *_from_environment(name, folder), *command[at:]]
    for pid, (name, command) in sorted(servers.items()):
        above = (servers[parent][0] for parent in _above(pid, parents) if parent in servers)
        if name not in above:
            yield f"{name} ({pid})", command


def _from_environment(name: str, process: Path) -> list[str]:
    """Return the arguments that stand in the environment of a server."""
    with suppress(OSError, ValueError):  # it ended, or its arguments are what no shell would read
        pairs = (process / "environ").read_bytes().decode(errors="replace").split("\0")
        variables = dict(pair.partition("=")[::2] for pair in pairs)
        if name == "gunicorn":
            return shlex.split(variables.get("GUNICORN_CMD_ARGS", ""))
        respawn = variables.get("GRANIAN_RESPAWN_FAILED_WORKERS", "").strip().lower()
        if name == "granian" and respawn in CLICK_TRUE:
            return ["--respawn-failed-workers"]
    return []


def _above(pid: int, parents: dict[int, int]) -> Iterator[int]:
    seen = {pid}
    # Numbers are given anew, and the table was not read at one moment: it may hold a circle.
    while (pid := parents.get(pid, 0)) and pid not in seen:
        seen.add(pid)
        yield pid
