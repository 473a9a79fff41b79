"""The example, run as its docstring says, and what its workers export."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys

import pytest
from websockets.sync.client import connect

from examples.opentelemetry import app as example
from tests.otel.collector import HOST, Receiver, collector, eventually, free_port
from tests.otel.conftest import ROOT, environment

FOLDER = ROOT / "examples" / "opentelemetry"


@pytest.fixture
def receiver():
    with Receiver() as made:
        yield made


def listens(port):
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((HOST, port)) == 0


def names(receiver):
    spans = {
        span.name
        for request in receiver.traces
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    }
    metrics = {
        metric.name
        for request in receiver.metrics
        for resource in request.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }
    return spans, metrics


def test_workers_export_traces_and_metrics(tmp_path, receiver):
    command = re.search(r"^    (uvicorn .*)$", example.__doc__, re.MULTILINE)[1].split()
    port = free_port()
    with collector(receiver, tmp_path) as url, (tmp_path / "server.log").open("wb") as log:
        variables = environment(
            OTEL_EXPORTER_OTLP_ENDPOINT=url,
            OTEL_SERVICE_NAME="chat",
            OTEL_METRIC_EXPORT_INTERVAL="500",
            OTEL_BSP_SCHEDULE_DELAY="200",
            WS_LIFECYCLE_DIRECTORY=str(tmp_path / "segments"),
        )
        server = subprocess.Popen(
            [sys.executable, "-m", *command, "--host", HOST, "--port", str(port)],
            cwd=ROOT,
            env=variables,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            eventually(lambda: listens(port), "the server listens")
            with connect(f"ws://{HOST}:{port}/echo", open_timeout=30, proxy=None) as client:
                client.send("hello")
                assert client.recv(timeout=30) == "hello"
            wanted = {
                *("GET", "websocket receive", "websocket send"),
                *("websocket disconnect", "websocket connection"),
            }
            eventually(lambda: names(receiver)[0] >= wanted, "the spans")
            both = {"websocket.server.handshakes", "websocket.server.send.duration"}
            eventually(lambda: names(receiver)[1] >= both, "the metrics")
            services = {
                attribute.value.string_value
                for request in receiver.traces
                for resource in request.resource_spans
                for attribute in resource.resource.attributes
                if attribute.key == "service.name"
            }
            assert services == {"chat"}
        finally:
            server.send_signal(signal.SIGTERM)
            try:
                server.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(server.pid, signal.SIGKILL)
                server.wait(30)
    assert server.returncode in (0, -signal.SIGTERM), (tmp_path / "server.log").read_text()


def test_the_example_is_short_and_stands_alone():
    text = (FOLDER / "app.py").read_text()
    assert len(text.splitlines()) <= 40
    assert not re.search(r"^\s*(from|import) (\.|examples)", text, re.MULTILINE)
