"""Start a real server on a loopback port, wait until it answers, and end it without leftovers."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parents[2]
HOST = "127.0.0.1"
LOG, SEGMENTS = "server.log", "segments"


@dataclass(frozen=True, kw_only=True)
class Server:
    """How one server is started; `command` is the line that the example's docstring promises."""

    name: str
    command: str
    bind: str = "--host {host} --port {port}"
    workers: int = 2
    # Printed once by each worker, where an answer of the first worker isn't enough to go on.
    ready: str = ""
    # Whether an empty message that the application sends reaches the client.
    sends_empty: bool = True
    # The label of the path /echo: the framework's own template, where there is a framework.
    route: str = "other"

    @property
    def module(self) -> str:
        """The import path of the example, without its attribute."""
        return self.command.split()[-1].partition(":")[0]

    def argv(self, port: int) -> list[str]:
        """The command on this interpreter, bound to `port` of the loopback interface."""
        program, *arguments = self.command.split()
        bind = self.bind.format(host=HOST, port=port).split()
        return [sys.executable, "-m", program, *bind, *arguments]


def _uvicorn(ws: str) -> Server:
    return Server(
        name=f"uvicorn-{ws}",
        command="uvicorn --workers 2 examples.uvicorn.app:app",
        bind="--host {host} --port {port} --ws " + ws,
    )


def _granian(name: str, app: str, route: str = "other") -> Server:
    # Granian 2.8.7 loses a SIGTERM while a worker is still importing, and then never exits.
    return Server(
        name=name,
        command=f"granian --interface asgi --workers 2 {app}",
        ready="Started worker-",
        route=route,
    )


def _daphne(name: str, app: str, route: str = "other") -> Server:
    # Daphne is one process, and drops a send whose text or bytes are empty.
    return Server(
        name=name,
        command=f"daphne {app}",
        bind="--bind {host} --port {port}",
        workers=1,
        sends_empty=False,
        route=route,
    )


def _hypercorn(name: str, options: str) -> Server:
    return Server(
        name=name,
        command=f"hypercorn {options} examples.hypercorn.app:app",
        bind="--bind {host}:{port}",
    )


SERVERS = (
    _uvicorn("websockets"),
    _uvicorn("websockets-sansio"),
    _uvicorn("wsproto"),
    _granian("granian", "examples.granian.app:app"),
    _hypercorn("hypercorn", "--workers 2"),
    _hypercorn("hypercorn-trio", "--workers 2 --worker-class trio"),
    _daphne("daphne", "examples.daphne.app:app"),
    Server(
        name="gunicorn",
        bind="--bind {host}:{port} --no-control-socket",  # it would stand in the home directory
        command="gunicorn --worker-class asgi --workers 2 examples.gunicorn.app:app",
        ready="ASGI server listening",  # a worker that still boots loses the SIGTERM here, too
    ),
    Server(name="fastapi", command="uvicorn --workers 2 examples.fastapi.app:app", route="/echo"),
    _daphne("channels-daphne", "examples.channels.app:app", route="echo"),
    _granian("channels-granian", "examples.channels.app:app", route="echo"),
)


def eventually(predicate: Callable[[], object], timeout: float, what: str = "") -> object:
    """Poll until `predicate` is true and return its value; `AssertionError` after `timeout` s."""
    deadline = time.monotonic() + timeout
    while not (value := predicate()):
        if time.monotonic() > deadline:
            name = what or getattr(predicate, "__name__", "the condition")
            raise AssertionError(f"{name}: not within {timeout} s, last value {value!r}")
        time.sleep(0.02)
    return value


def free_port() -> int:
    """Return a port that was free a moment ago; a clash is noticed and tried again at the start."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]


@dataclass(frozen=True)
class Stopped:
    """How a server ended: `killed` when SIGTERM was not enough, `orphans` outlived the parent."""

    seconds: float
    killed: bool
    orphans: tuple[int, ...]


class Running:
    """A started server in a session, hence a process group, of its own."""

    def __init__(self, server: Server, port: int, folder: Path, process: subprocess.Popen[bytes]):
        self.server, self.port, self._process = server, port, process
        self.log, self.segments = folder / LOG, folder / SEGMENTS

    @property
    def pid(self) -> int:
        """The id of the parent process, and of the group."""
        return self._process.pid

    @property
    def url(self) -> str:
        """The WebSocket address, without a path."""
        return f"ws://{HOST}:{self.port}"

    def output(self) -> str:
        """What the server has printed so far."""
        return self.log.read_text(errors="replace")

    def exited(self) -> bool:
        """Whether the parent has ended. It isn't reaped yet, so its id can't be reused."""
        flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return os.waitid(os.P_PID, self.pid, flags) is not None

    def answers(self) -> bool:
        """Whether some worker answers an HTTP request, with any status."""
        with suppress(OSError), socket.create_connection((HOST, self.port), timeout=1) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            return client.recv(5) == b"HTTP/"
        return False

    def ready(self) -> bool:
        """Whether the server answers and, where it says so, each worker has started."""
        mark = self.server.ready
        return self.answers() and (not mark or self.output().count(mark) >= self.server.workers)

    def members(self) -> tuple[int, ...]:
        """Ids of the group's live processes, without the parent."""
        found = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):  # it may end while it is read
                # pid (name) state parent group …; the name may hold spaces and brackets
                state, _parent, group = stat.read_text().rpartition(") ")[2].split()[:3]
                if int(group) == self.pid and state != "Z":
                    found.append(int(stat.parent.name))
        return tuple(sorted(set(found) - {self.pid}))

    def stop(self, timeout: float = 8) -> Stopped:
        """SIGTERM to the parent, then SIGKILL to what is left of its group after `timeout` s."""
        began = time.monotonic()
        if not self.exited():
            os.kill(self.pid, signal.SIGTERM)
        with suppress(AssertionError):
            eventually(self.exited, timeout)
        killed = not self.exited()
        if not killed:  # children may take a moment to notice
            with suppress(AssertionError):
                eventually(lambda: not self.members(), 1)
        orphans = () if killed else self.members()
        # The unreaped parent keeps the group's id ours: this reaches nobody else.
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        eventually(lambda: not self.members(), 10, "the end of the killed processes")
        self._process.wait(timeout=10)
        return Stopped(round(time.monotonic() - began, 2), killed, orphans)


def _spawn(server: Server, folder: Path, env: dict[str, str]) -> Running:
    port = free_port()
    with (folder / LOG).open("wb") as out:
        process = subprocess.Popen(
            server.argv(port),
            cwd=ROOT,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **env},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return Running(server, port, folder, process)


def start(server: Server, folder: Path, env: dict[str, str], timeout: float = 20) -> Running:
    """Start `server` with `env` and wait until it answers; `folder` takes its output."""
    for _attempt in range(3):
        running = _spawn(server, folder, env)
        try:
            eventually(lambda it=running: it.exited() or it.ready(), timeout, "readiness")
        except BaseException as error:
            running.stop(timeout=1)
            error.add_note(f"{server.name} printed:\n{running.output()}")
            raise
        if not running.exited():
            return running
        running.stop()
        if "in use" not in running.output():
            break
    raise AssertionError(f"{server.name} did not start and printed:\n{running.output()}")


@contextmanager
def serving(server: Server, folder: Path, *, service: str = "test") -> Iterator[Running]:
    """Run `server` for a `with` block, its log and segments in `folder`; no process stays."""
    segments = folder / SEGMENTS
    segments.mkdir(mode=0o700)
    env = {"WS_LIFECYCLE_SERVICE": service, "WS_LIFECYCLE_DIRECTORY": str(segments)}
    running = start(server, folder, env)
    try:
        yield running
    except BaseException as error:
        running.stop(timeout=1)
        error.add_note(f"{server.name} printed:\n{running.output()}")
        raise
    end = running.stop()
    assert not end.killed, f"{server.name} ignored SIGTERM and printed:\n{running.output()}"
    assert not end.orphans, f"{server.name} left {end.orphans}:\n{running.output()}"
