"""Start a real server on a loopback port, wait until it answers, and end it without leftovers."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ws_lifecycle_metrics.conformance import process
from ws_lifecycle_metrics.conformance.process import HOST, LOG, free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parents[2]
SEGMENTS = "segments"

__all__ = ["HOST", "LOG", "ROOT", "SERVERS", "Running", "Server", "eventually", "free_port"]


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
    Server(
        name="gunicorn-uvicorn",
        bind="--bind {host}:{port} --no-control-socket",
        command="gunicorn --worker-class uvicorn_worker.UvicornWorker --workers 2"
        " examples.gunicorn.app:app",
        ready="Application startup complete",
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


class Running(process.Running):
    """A started example, with the folder of its segments."""

    def __init__(self, server: Server, started: process.Running, folder: Path) -> None:
        super().__init__(started.command, started.port, folder, started.process)
        self.server, self.segments = server, folder / SEGMENTS


def start(server: Server, folder: Path, env: dict[str, str], timeout: float = 20) -> Running:
    """Start `server` with `env` and wait until it answers; `folder` takes its output."""
    command = process.Command(
        name=server.name,
        argv=server.argv,
        workers=server.workers,
        ready=server.ready,
        cwd=ROOT,
    )
    return Running(server, process.start(command, folder, env, timeout), folder)


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
