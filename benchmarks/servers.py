"""End to end: the CPU time that real servers need for real WebSocket traffic.

A server's process serves the bare application, the no-op wrapper and a candidate at three paths.
This process is the client: it sends on several connections at once, then reads all answers, and
asks the server for its CPU time before and after.
"""

from __future__ import annotations

import asyncio
import functools
import socket
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ws_lifecycle_metrics.conformance.frames import TEXT, encode, new_key
from ws_lifecycle_metrics.conformance.process import HOST, Command, Running, StartError, start

from .measure import BARE, NOOP, ROOT, Figure, Samples, figure, interleave, ratio, versions
from .part import Bar, Data, Panel, Run, Table, shown
from .peers import CANDIDATES
from .places import place, python_of
from .processes import Deadline, MeasureError, alternate, say
from .served import BARE_PATH, CANDIDATE_PATH, CPU_PATH, KEY, NOOP_PATH

NAME = "servers"
TITLE = "End to end"
ABOUT = """\
One server process with uvloop, 16 connections, texts of 64 bytes, an echo each; the client is
another process. CPU time of all threads of the server, user and system, for 100,000 echoes. What
a candidate does in the background is in all three figures of its process alike."""

CONNECTIONS = 16
ECHOES = 100_000
SLICE_NS, SLICES = 6e6, 50
"""CPU time of a slice, and slices a round: the shorter, the less changes from one to the next."""
FRAME = encode(TEXT, b"x" * 64)
ECHO_BYTES = 2 + 64  # a frame of a server has no mask
SECONDS = 20.0
"""Time for anything that the server has to answer."""

COMMANDS = {
    "uvicorn": "uvicorn --loop uvloop --interface asgi3 --no-access-log --log-level warning "
    "--ws-ping-interval 3600 --host {host} --port {port} benchmarks.served:app",
    "granian": "granian --interface asgi --loop uvloop --workers 1 --no-access-log "
    "--host {host} --port {port} benchmarks.served:app",
}


class Client:
    """A connection that was accepted; it knows no more of the protocol than it needs."""

    def __init__(self, port: int, path: str) -> None:
        self.socket = socket.create_connection((HOST, port), timeout=SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.sendall(
            f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {new_key()}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += self._some(1)
        if not head.startswith(b"HTTP/1.1 101"):
            raise MeasureError(f"{path} was answered with {head[:40]!r}")

    def _some(self, most: int) -> bytes:
        found = self.socket.recv(most)
        if not found:
            raise MeasureError("the server closed a connection")
        return found

    def take(self, size: int) -> bytes:
        """Return the next bytes, all of them."""
        found = self._some(size)
        while len(found) < size:
            found += self._some(size - len(found))
        return found

    def ask(self) -> str:
        """Send a short text and return the one that comes."""
        self.socket.sendall(encode(TEXT, b"?"))
        return self.take(self.take(2)[1]).decode()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()


def echoes(clients: Sequence[Client], control: Client, volleys: int) -> float:
    """Return the CPU ns that the server needs for one echo, as each client sends `volleys`."""
    before = int(control.ask())
    for _ in range(volleys):
        _volley(clients)
    return (int(control.ask()) - before) / (volleys * len(clients))


def _volley(clients: Sequence[Client]) -> None:
    for client in clients:
        client.socket.sendall(FRAME)
    for client in clients:
        client.take(ECHO_BYTES)


@contextmanager
def serving(server: str, key: str, sink: str) -> Iterator[Running]:
    """Start a server with a candidate; end it, whatever happens."""
    candidate = CANDIDATES[key]
    python = python_of(candidate)

    def argv(port: int) -> list[str]:
        return [python, "-m", *COMMANDS[server].format(host=HOST, port=port).split()]

    with place(candidate, sink) as env, tempfile.TemporaryDirectory() as folder:
        command = Command(name=server, argv=argv, cwd=ROOT)
        env |= {KEY: key, "PYTHONPATH": str(ROOT)}
        try:
            running = start(command, Path(folder), env, timeout=Deadline.left(60))
        except StartError as error:
            raise MeasureError(str(error).strip().splitlines()[-1]) from None
        try:
            yield running
        finally:
            running.stop()


def one_server(server: str, key: str, run: Run) -> Samples:
    """Return ns an echo, by application, of one server process."""
    with serving(server, key, run.sink) as running:
        try:
            with Client(running.port, CPU_PATH) as control, ExitStack() as stack:
                cases: dict[str, Callable[[], float]] = {}
                for name, path in ((BARE, BARE_PATH), (NOOP, NOOP_PATH), (key, CANDIDATE_PATH)):
                    clients = [
                        stack.enter_context(Client(running.port, path)) for _ in range(CONNECTIONS)
                    ]
                    few = echoes(clients, control, 10)
                    count = max(1, round(SLICE_NS * run.effort.size / few / CONNECTIONS))
                    cases[name] = functools.partial(echoes, clients, control, count)
                Deadline.left(1)
                return asyncio.run(interleave(cases, SLICES * run.effort.rounds))
        except OSError as error:  # time-outs are among them
            raise MeasureError(f"{server} did not answer: {error}") from None


def measure(run: Run) -> Data:
    """Measure this project in all processes, and the peers, which need less precision, in a few."""

    def one(key: str) -> dict[str, Samples]:
        say(f"  {CANDIDATES[key].name}")
        return {server: one_server(server, key, run) for server in COMMANDS}

    own = [key for key in run.candidates if not CANDIDATES[key].packages]
    others = [key for key in run.candidates if key not in own]
    cases, missing = alternate(own, run.effort.processes, one)
    more, lost = alternate(others, max(1, run.effort.processes // 4), one)
    return {
        "cases": cases | more,
        "missing": {CANDIDATES[key].name: why for key, why in (missing | lost).items()},
        "versions": versions(("uvicorn", "granian", "uvloop", "websockets", "httptools")),
    }


# What is shown.


def _ratio(data: Data, key: str, server: str, beside: str = NOOP) -> Figure | None:
    samples = data["cases"].get(key, {}).get(server)
    return ratio(samples[key], samples[beside]) if samples else None


def tables(data: Data) -> list[Table]:
    """Return a table with a row for each application."""
    rows = [_floor_row(data, BARE), _floor_row(data, NOOP)]
    for key in CANDIDATES:
        if key in data["cases"]:
            cells = [CANDIDATES[key].name]
            for server in COMMANDS:
                samples, times = data["cases"][key].get(server), _ratio(data, key, server)
                cells.append(shown(figure(samples[key]).scaled(ECHOES / 1e9)) if samples else "")
                cells.append(shown(times, 3) if times else "")
            rows.append(cells)
    head = [""]
    for server in COMMANDS:
        head += [f"{server}: CPU s for 100,000 echoes", "× no-op"]
    return [Table("CPU of the server", head, rows)]


def _floor_row(data: Data, app: str) -> list[str]:
    cells = [app]
    for server in COMMANDS:
        values = [v for case in data["cases"].values() for v in case.get(server, {}).get(app, ())]
        cells += [shown(figure(values).scaled(ECHOES / 1e9)) if values else "", ""]
    return cells


def bars(data: Data) -> list[Bar]:
    """Return what is demanded of this project on each server."""
    return [
        Bar(
            demand=f"CPU on {server}, of the no-op wrapper's",
            limit=1.03,
            unit="×",
            measured=_ratio(data, "ours", server),
        )
        for server in COMMANDS
    ]


def panels(data: Data) -> list[Panel]:
    """Return a chart for each server."""
    found = []
    for server in COMMANDS:
        times = {CANDIDATES[key].name: _ratio(data, key, server) for key in CANDIDATES}
        found.append(
            Panel(
                name=server,
                title=f"{server} with uvloop: CPU of an echo",
                unit="× no-op wrapper",
                values={name: one for name, one in times.items() if one},
            )
        )
    return found
