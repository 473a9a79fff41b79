"""Start a server process on a loopback port, wait until it answers, and end all of it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..store.process import stat_fields
from . import leftovers

HOST = "127.0.0.1"
LOG = "server.log"


class StartError(Exception):
    """A server did not start; the text holds what it printed."""


def poll(predicate: Callable[[], object], timeout: float) -> object:
    """Call `predicate` until it is true and return its value; after `timeout` s the last one."""
    deadline = time.monotonic() + timeout
    while not (value := predicate()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return value


def free_port() -> int:
    """Return a port that was free a moment ago; a clash is noticed and tried again at the start."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass(frozen=True, kw_only=True)
class Command:
    """How a server is started. `argv` is made for a port, which may be another at each attempt.

    `ready` is printed once by each worker, where an answer of the first isn't enough to go on.
    """

    name: str
    argv: Callable[[int], Sequence[str]]
    workers: int = 1
    ready: str = ""
    cwd: Path | None = None


@dataclass(frozen=True)
class Stopped:
    """How a server ended: `killed` when SIGTERM was not enough, `orphans` outlived the parent."""

    seconds: float
    killed: bool
    orphans: tuple[int, ...]


class Running:
    """A started server in a session, hence a process group, of its own."""

    def __init__(
        self, command: Command, port: int, folder: Path, process: subprocess.Popen[bytes]
    ) -> None:
        self.command, self.port, self.process = command, port, process
        self.log = folder / LOG

    @property
    def pid(self) -> int:
        """The id of the parent process, and of the group."""
        return self.process.pid

    @property
    def url(self) -> str:
        """The WebSocket address, without a path."""
        return f"ws://{HOST}:{self.port}"

    def output(self) -> str:
        """What the server has printed so far."""
        return self.log.read_text(errors="replace")

    def exited(self) -> bool:
        """Whether the parent has ended. It isn't reaped yet, so its id can't be reused."""
        if self.process.returncode is not None:
            return True
        flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return os.waitid(os.P_PID, self.pid, flags) is not None

    def answers(self, within: float = 1.0) -> bool:
        """Whether some worker answers an HTTP request, with any status."""
        with suppress(OSError), socket.create_connection((HOST, self.port), timeout=within) as peer:
            peer.settimeout(within)
            peer.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            return peer.recv(5) == b"HTTP/"
        return False

    def ready(self) -> bool:
        """Whether the server answers and, where it says so, each worker has started."""
        mark = self.command.ready
        return self.answers() and (not mark or self.output().count(mark) >= self.command.workers)

    def members(self) -> tuple[int, ...]:
        """Ids of the group's live processes, without the parent."""
        found = set()
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):  # it may end while it is read
                state, _parent, group = stat_fields(stat.read_bytes())[:3]
                if int(group) == self.pid and state != b"Z":
                    found.add(int(stat.parent.name))
        return tuple(sorted(found - {self.pid}))

    def terminate(self) -> None:
        """Send SIGTERM to the parent, unless it has ended."""
        if not self.exited():
            os.kill(self.pid, signal.SIGTERM)

    def stop(self, timeout: float = 8) -> Stopped:
        """SIGTERM to the parent, then SIGKILL to what is left of its group after `timeout` s."""
        began = time.monotonic()
        if self.process.returncode is not None:
            return Stopped(0.0, False, ())
        self.terminate()
        poll(self.exited, timeout)
        killed = not self.exited()
        if not killed:  # children may take a moment to notice
            poll(lambda: not self.members(), 1)
        orphans = () if killed else self.members()
        # The unreaped parent keeps the group's id ours: this reaches nobody else.
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        poll(lambda: not self.members(), 10)
        leftovers.forget(self.pid)
        self.process.wait(timeout=10)
        return Stopped(round(time.monotonic() - began, 2), killed, orphans)


def _spawn(command: Command, folder: Path, env: dict[str, str]) -> Running:
    port = free_port()
    with (folder / LOG).open("wb") as out:
        process = leftovers.spawned(
            command.argv(port),
            cwd=command.cwd,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **env},
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    return Running(command, port, folder, process)


def start(command: Command, folder: Path, env: dict[str, str], timeout: float = 30) -> Running:
    """Start a server with `env` and wait until it answers; `folder` takes its output.

    Raises `StartError` if it ends, or is not ready within `timeout` s.
    """
    why = "did not start"
    for _attempt in range(3):
        running = _spawn(command, folder, env)
        try:
            poll(lambda it=running: it.exited() or it.ready(), timeout)  # type: ignore[misc]  # bound at once
            if not running.exited() and running.ready():
                return running
            why = "did not start" if running.exited() else f"was not ready within {timeout:g} s"
        except BaseException:
            running.stop(timeout=1)
            raise
        running.stop(timeout=1)
        if "in use" not in running.output():
            break
    raise StartError(f"{command.name} {why} and printed:\n{running.output()}")
