"""Providers end in bounded time, whatever their collector does."""

from __future__ import annotations

import socket
import subprocess
import sys
import textwrap
import time

import pytest
from opentelemetry import metrics, trace

from ws_lifecycle_metrics.telemetry.shutdown import shutdown


class Provider:
    def __init__(self, seconds: float = 0, error: Exception | None = None) -> None:
        self.seconds, self.error, self.ended = seconds, error, False

    def shutdown(self) -> None:
        if self.error is not None:
            raise self.error
        time.sleep(self.seconds)
        self.ended = True


def test_providers_end_together():
    providers = [Provider(0.2), Provider(0.2)]
    assert shutdown(*providers)
    assert all(provider.ended for provider in providers)
    assert shutdown()


def test_one_that_waits_is_left_behind():
    quick, slow = Provider(), Provider(10)
    started = time.monotonic()
    assert not shutdown(slow, quick, timeout=0.3)
    assert time.monotonic() - started < 3
    assert quick.ended


def test_one_that_raises_is_done():
    other = Provider()
    assert shutdown(Provider(error=RuntimeError("theirs")), other)
    assert other.ended


def test_what_nobody_set_has_no_end_and_is_no_fault(caplog):
    """The API's own providers, which are the global ones until somebody sets others."""
    assert shutdown(trace.get_tracer_provider(), metrics.get_meter_provider())
    assert caplog.records == []


DEAD = """
import sys, time
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from ws_lifecycle_metrics import Config
from ws_lifecycle_metrics.telemetry.otel_metrics import LifecycleMetricExporter, observe
from ws_lifecycle_metrics.telemetry.shutdown import shutdown

config = Config(directory=sys.argv[1])
traces = TracerProvider(shutdown_on_exit=False)
traces.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
traces.get_tracer("test").start_span("lost").end()
exporter = LifecycleMetricExporter(OTLPMetricExporter(), config)
numbers = MeterProvider([PeriodicExportingMetricReader(exporter)], shutdown_on_exit=False)
observe(numbers, config)
began = time.monotonic()
print(shutdown(traces, numbers, timeout=1.0), time.monotonic() - began)
"""


@pytest.mark.parametrize("kind", ["silent", "down"])
def test_a_process_with_a_dead_collector_ends_in_time(tmp_path, kind):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        if kind == "down":
            server.close()
        started = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(DEAD), str(tmp_path)],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
            env={
                "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
                "OTEL_EXPORTER_OTLP_TIMEOUT": "45",
                "NO_PROXY": "*",
            },
        )
    ended, took = done.stdout.split()
    assert float(took) < 3
    assert ended == "False"
    assert time.monotonic() - started < 30  # longer, were it left to the providers
