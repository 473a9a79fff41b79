"""The demo's processes: the application's server and the sidecar, in a directory of their own."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from urllib.request import ProxyHandler, build_opener

HOST = "127.0.0.1"
SERVICE = "demo"
WORKERS = 2
SIDECAR_PORT = 10464
START_TIMEOUT = 30.0
STOP_TIMEOUT = 4.0
KILL_TIMEOUT = 2.0

ROOT = Path(__file__).resolve().parents[2]
MEMORY = Path("/dev/shm")  # where the middleware keeps segments by default

_open = build_opener(ProxyHandler({})).open  # no proxy has a say on loopback


class StackError(Exception):
    """A process of the demo did not start, or ended; the text has the tail of its log."""


class Stopped(Exception):  # noqa: N818  # no error: the user wants no more
    """The demo is asked to end while it starts."""


def get(url: str) -> str:
    """Return what a loopback address answers; raises OSError."""
    with _open(url, timeout=10) as answer:
        return str(answer.read().decode())


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


class Process:
    """A process that writes to a log, in a group of its own, so that Ctrl-C is ours alone."""

    def __init__(self, name: str, log: Path, arguments: list[str], env: dict[str, str]) -> None:
        self.name = name
        self._log = log
        with log.open("wb") as out:
            self._process = subprocess.Popen(
                [sys.executable, "-m", *arguments],
                cwd=ROOT,
                env={**os.environ, "PYTHONUNBUFFERED": "1", **env},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                process_group=0,
            )

    @property
    def log(self) -> str:
        """What it has printed so far."""
        return self._log.read_text(errors="replace")

    @property
    def ended(self) -> bool:
        """Whether it has ended. It isn't reaped, so that its id, and its group's, stay ours."""
        flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return os.waitid(os.P_PID, self._process.pid, flags) is not None

    def check(self) -> None:
        """Raise `StackError` if it has ended."""
        if self.ended:
            raise StackError(f"{self.name} has ended; {self.tail}")

    @property
    def tail(self) -> str:
        """The end of its log, for a person."""
        lines = "\n".join(f"    {line}" for line in self.log.splitlines()[-15:])
        return f"the last lines of its log:\n{lines}"

    def ask_to_end(self) -> None:
        """Send SIGTERM."""
        if not self.ended:
            self._process.send_signal(signal.SIGTERM)

    def end(self, deadline: float) -> None:
        """Wait until `deadline` (monotonic), then kill what is left of the group."""
        while not self.ended and time.monotonic() < deadline:
            time.sleep(0.02)
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        # The others of the group are killed, but they may still have a file to make.
        patience = time.monotonic() + KILL_TIMEOUT
        with suppress(ProcessLookupError):
            while time.monotonic() < patience:
                os.killpg(self._process.pid, 0)
                time.sleep(0.02)


class Stack:
    """The application under Granian and the sidecar. Whatever happens, call `stop`."""

    def __init__(self) -> None:
        configured = Path(os.environ.get("WS_LIFECYCLE_DIRECTORY") or MEMORY)
        base = configured if os.access(configured, os.W_OK) else None
        self.directory = Path(tempfile.mkdtemp(prefix="ws-lifecycle-demo-", dir=base))
        self._env = {
            "WS_LIFECYCLE_SERVICE": SERVICE,
            "WS_LIFECYCLE_DIRECTORY": str(self.directory),
        }
        self._processes: list[Process] = []
        self._ready = False
        self.port = self.sidecar_port = 0

    @property
    def url(self) -> str:
        """Where the application answers."""
        return f"http://{HOST}:{self.port}"

    @property
    def sidecar_url(self) -> str:
        """Where the sidecar answers."""
        return f"http://{HOST}:{self.sidecar_port}"

    async def start(self, stop: asyncio.Event) -> None:
        """Start both and wait until each worker reports; raises `StackError` or `Stopped`."""
        self.port = free_port()
        server = ["granian", "--interface", "asgi", "--workers", str(WORKERS)]
        server += ["--host", HOST, "--port", str(self.port), "examples.demo.app:app"]
        self._spawn("the application's server (granian)", "server.log", server)
        await self._start_sidecar(stop)
        await self._until(self._all_report, stop)
        self._ready = True

    async def _start_sidecar(self, stop: asyncio.Event) -> None:
        for port in (SIDECAR_PORT, 0):
            arguments = ["ws_lifecycle_metrics", "serve", "--host", HOST, "--port", str(port)]
            sidecar = self._spawn("the sidecar", "sidecar.log", arguments)
            await self._until(lambda it=sidecar: it.ended or _served(it.log), stop)
            if found := _served(sidecar.log):
                self.sidecar_port = int(found[1])
                return
            if f"cannot listen on {HOST}:{port}" not in sidecar.log:
                break
            self._processes.remove(sidecar)
            sidecar.end(deadline=0)
        sidecar.check()

    def _spawn(self, name: str, log: str, arguments: list[str]) -> Process:
        process = Process(name, self.directory / log, arguments, self._env)
        self._processes.append(process)
        return process

    async def _until(self, true: Callable[[], object], stop: asyncio.Event) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        while not await asyncio.to_thread(true):
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), 0.05)
            if stop.is_set():
                raise Stopped
            if time.monotonic() > deadline:
                logs = "\n".join(f"{process.name}, {process.tail}" for process in self._processes)
                raise StackError(f"it is not ready after {START_TIMEOUT:.0f} s\n{logs}")

    def _all_report(self) -> bool:
        self.check()
        with suppress(OSError):
            get(f"{self.url}/openapi.json")
            return f"asgi_workers_reporting {WORKERS}.0\n" in get(f"{self.sidecar_url}/metrics")
        return False

    def check(self) -> None:
        """Raise `StackError` if a process has ended."""
        for process in self._processes:
            process.check()

    def stop(self) -> None:
        """End the processes and remove the directory."""
        try:
            # Granian loses a SIGTERM while a worker is still importing, so it isn't asked then.
            deadline = time.monotonic() + (STOP_TIMEOUT if self._ready else 0)
            for process in self._processes:
                process.ask_to_end()
            for process in self._processes:
                process.end(deadline)
        finally:
            shutil.rmtree(self.directory, ignore_errors=True)


def _served(log: str) -> re.Match[str] | None:
    return re.search(r"http://[^/\s]+:(\d+)/metrics", log)
