"""Where candidates run: their environments, a folder in memory, and where what they send goes."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

from ws_lifecycle_metrics.conformance.venvs import InstallError, environment

from .measure import ROOT
from .peers import Candidate
from .processes import MeasureError

CACHE = ROOT / ".bench"


class MissingError(MeasureError):
    """A candidate cannot be measured here; the text says why."""


def python_of(candidate: Candidate) -> str:
    """Return the Python that has a candidate's packages, installed on the first call.

    Raises `MissingError`.
    """
    if not candidate.packages:
        return sys.executable
    if sys.version_info[:2] < candidate.oldest:
        needed = ".".join(map(str, candidate.oldest))
        raise MissingError(f"it needs Python {needed}")
    os.environ["XDG_CACHE_HOME"] = str(CACHE)
    try:
        return environment(candidate.packages, beside=False)
    except InstallError as error:
        raise MissingError(str(error)) from None


def forget_environments() -> None:
    """Remove the peers' environments, so that the newest versions are installed."""
    shutil.rmtree(CACHE / "ws-lifecycle-metrics", ignore_errors=True)


@contextmanager
def place(candidate: Candidate, address: str) -> Iterator[dict[str, str]]:
    """Yield what a process of a candidate has in its environment, with a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="bench-", dir=shared_memory()) as folder:
        filled = {"folder": folder, "sink": address}
        yield {name: text.format(**filled) for name, text in candidate.environment.items()}


def shared_memory() -> str | None:
    """Return where files are in memory, as they are in production; None where that is nowhere."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


class _Sink(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length") or 0))
        self.send_response(200)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    do_GET = do_PUT = do_POST  # noqa: N815  # the base class calls them by these names

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def sink() -> Iterator[str]:
    """Take on loopback what candidates send away; yield the address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Sink)
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
