"""A real collector, rotel, in front of a small receiver that keeps what arrives.

rotel is linked to libpython and has no build for 3.14 yet; there the receiver stands alone.
"""

from __future__ import annotations

import gzip
import http.server
import os
import socket
import subprocess
import sys
import sysconfig
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HOST = "127.0.0.1"
DEADLINE = 60.0


def eventually(found: Callable[[], Any], what: str, deadline: float = DEADLINE) -> Any:
    """Wait until `found` gives something true, and return it."""
    until = time.monotonic() + deadline
    while time.monotonic() < until:
        value = found()
        if value:
            return value
        time.sleep(0.05)
    raise AssertionError(f"not within {deadline:.0f} s: {what}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


class Receiver:
    """An OTLP/HTTP end; `answer` may replace what it says, to be a bad collector."""

    def __init__(self) -> None:
        self.metrics: list[ExportMetricsServiceRequest] = []
        self.traces: list[ExportTraceServiceRequest] = []
        self.encodings: set[str] = set()
        self.requests = 0
        self.answer: Callable[[http.server.BaseHTTPRequestHandler], None] | None = None
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                receiver.take(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer((HOST, 0), Handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self.port = self._server.server_address[1]
        self.url = f"http://{HOST}:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    def take(self, request: http.server.BaseHTTPRequestHandler) -> None:
        self.requests += 1
        body = request.rfile.read(int(request.headers["content-length"]))
        encoding = request.headers.get("content-encoding", "")
        self.encodings.add(encoding)
        if encoding == "gzip":
            body = gzip.decompress(body)
        if self.answer is not None:
            self.answer(request)
            return
        if request.path.endswith("/metrics"):
            self.metrics.append(ExportMetricsServiceRequest.FromString(body))
        else:
            self.traces.append(ExportTraceServiceRequest.FromString(body))
        request.send_response(200)
        request.send_header("content-type", "application/x-protobuf")
        request.send_header("content-length", "0")
        request.end_headers()

    def __enter__(self) -> Receiver:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)


@contextmanager
def collector(receiver: Receiver, directory: Path) -> Iterator[str]:
    """Run rotel in front of a receiver; yield the address of its OTLP/HTTP end."""
    if sys.version_info >= (3, 14):
        yield receiver.url
        return
    import rotel

    port = free_port()
    agent = Path(rotel.__file__).with_name("rotel-agent")
    command = [
        *(str(agent), "start", "--exporter", "otlp", "--batch-timeout", "100ms"),
        *("--otlp-http-endpoint", f"{HOST}:{port}", "--otlp-grpc-endpoint", f"{HOST}:0"),
        *("--otlp-exporter-endpoint", receiver.url, "--otlp-exporter-protocol", "http"),
        *("--otlp-exporter-compression", "gzip"),
        *("--pid-file", str(directory / "rotel.pid"), "--log-file", str(directory / "rotel.log")),
    ]
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    # It is linked to libpython, which need not lie where the system's loader looks.
    environment["LD_LIBRARY_PATH"] = str(sysconfig.get_config_var("LIBDIR"))
    with (directory / "rotel.out").open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment)
    try:
        eventually(lambda: _listens(port) or process.poll() is not None, "rotel listens")
        assert process.poll() is None, (directory / "rotel.out").read_text()
        yield f"http://{HOST}:{port}"
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((HOST, port)) == 0
