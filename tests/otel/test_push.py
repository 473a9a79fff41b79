"""The sidecar's pushes, whatever the collector does."""

from __future__ import annotations

import socket
import threading
import time
import urllib.request
from contextlib import contextmanager

import pytest
from click.testing import CliRunner
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceResponse,
)
from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult

from tests.otel.collector import HOST, Receiver, eventually, free_port
from tests.otel.conftest import sidecar
from tests.otel.samples import from_prometheus
from ws_lifecycle_metrics import Config, ConfigError
from ws_lifecycle_metrics.cli import cli
from ws_lifecycle_metrics.store.snapshot import Source
from ws_lifecycle_metrics.telemetry import logs, otlp
from ws_lifecycle_metrics.telemetry.otlp import MAX_ANSWER, BoundedSession, Pusher


@pytest.fixture
def receiver():
    with Receiver() as made:
        yield made


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "2")
    monkeypatch.delenv("OTEL_RESOURCE_ATTRIBUTES", raising=False)


def pusher(tmp_path, monkeypatch, url):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
    return Pusher("push", str(tmp_path))


@contextmanager
def silent():
    """Listens, takes connections in, and never says anything."""
    with socket.create_server((HOST, 0)) as server:
        yield f"http://{HOST}:{server.getsockname()[1]}"


def failed() -> float:
    from ws_lifecycle_metrics.store.totals import counted_here

    return sum(w[0] for (_, labels), w in counted_here().items() if labels == ("failed",))


def refuse(status, reason=None, body=b""):
    def answer(request):
        request.send_response(status, reason)
        request.send_header("content-type", "text/plain; charset=utf-16")  # which it is not
        request.send_header("content-length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    return answer


def test_a_push_reaches_the_collector(tmp_path, monkeypatch, receiver):
    assert pusher(tmp_path, monkeypatch, receiver.url).push()
    (request,) = receiver.metrics
    assert request.resource_metrics[0].scope_metrics[0].scope.name == "ws_lifecycle_metrics"


def test_it_pushes_each_period_and_once_more_at_the_end(tmp_path, monkeypatch, receiver):
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "50")
    made = pusher(tmp_path, monkeypatch, receiver.url)
    made.start()
    eventually(lambda: len(receiver.metrics) >= 3, "three pushes")
    assert made.close()
    counted = len(receiver.metrics)
    time.sleep(0.2)
    assert len(receiver.metrics) == counted


def test_the_last_push_does_not_wait_for_its_period(tmp_path, monkeypatch, receiver):
    made = pusher(tmp_path, monkeypatch, receiver.url)
    made.start()
    eventually(lambda: receiver.metrics, "the first push")
    assert made.close()
    assert len(receiver.metrics) == 2


@pytest.mark.parametrize("status", [400, 401, 404, 500])
def test_a_collector_that_refuses_costs_the_push_alone(tmp_path, monkeypatch, receiver, status):
    before = failed()
    receiver.answer = refuse(status)
    made = pusher(tmp_path, monkeypatch, receiver.url)
    assert not made.push()
    assert failed() == before + 1
    receiver.answer = None
    assert made.push()


def partly(rejected):
    def answer(request):
        said = ExportMetricsServiceResponse()
        said.partial_success.rejected_data_points = rejected
        said.partial_success.error_message = "no" * (not rejected)  # a warning alone is none
        body = said.SerializeToString()
        request.send_response(200)
        request.send_header("content-length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    return answer


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (refuse(300), "redirects elsewhere (300)"),
        (refuse(307), "redirects elsewhere (307)"),
        (refuse(304), "redirects elsewhere (304)"),
        (partly(7), "rejected 7 data points"),
        (partly(0), ""),
        (refuse(400, "no\x1b[31m"), r"no\x1b[31m"),
    ],
    ids=["choices", "redirected", "not modified", "rejected", "warned", "hostile"],
)
def test_a_collector_that_answers_need_not_have_taken_it(
    tmp_path, monkeypatch, receiver, caplog, answer, why
):
    before = failed()
    monkeypatch.setattr(logs, "_limit", type(logs._limit)())
    receiver.answer = answer
    assert pusher(tmp_path, monkeypatch, receiver.url).push() is (not why)
    assert failed() == before + bool(why)
    assert why in caplog.text
    assert ("a push over OTLP failed" in caplog.text) is bool(why)
    assert "\x1b" not in caplog.text


def test_what_a_collector_says_is_harmless_whatever_the_exporter_logs_of_it(receiver):
    """Older exporters log the text, newer ones the reason."""
    said = "Å\x1b[31m\n"
    receiver.answer = refuse(400, "no\x1b[31m", said.encode())
    with BoundedSession() as session:
        answer = session.post(receiver.url, data=b"", timeout=10)
    assert (answer.reason, answer.text) == (r"no\x1b[31m", r"Å\x1b[31m\n")


def test_a_collector_that_is_down_costs_the_push_alone(tmp_path, monkeypatch):
    before = failed()
    assert not pusher(tmp_path, monkeypatch, f"http://{HOST}:{free_port()}").push()
    assert failed() == before + 1


@pytest.mark.parametrize("kind", ["down", "silent", "busy"])
def test_the_end_is_bounded(tmp_path, monkeypatch, receiver, kind):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "60")
    receiver.answer = refuse(503)
    with silent() as url:
        urls = {"down": f"http://{HOST}:{free_port()}", "silent": url, "busy": receiver.url}
        made = pusher(tmp_path, monkeypatch, urls[kind])
        made.start()
        time.sleep(0.3)
        started = time.monotonic()
        made.close(1.5)
        assert time.monotonic() - started < 5
    made._exporter.shutdown()  # else the thread tries again for a minute, beside other tests
    made._thread.join(20)
    assert not made._thread.is_alive()


def test_an_endless_answer_is_not_read(tmp_path, monkeypatch, receiver):
    written = 0

    def flood(request):
        nonlocal written
        request.send_response(200)
        request.send_header("content-length", str(300 * 1024 * 1024))
        request.end_headers()
        try:
            while written < 300 * 1024 * 1024:
                written += request.wfile.write(b"x" * 65536)
        except OSError:
            request.close_connection = True

    monkeypatch.setattr(otlp, "CLOSE_SECONDS", 60.0)
    receiver.answer = flood
    assert pusher(tmp_path, monkeypatch, receiver.url).push()
    assert written < 100 * MAX_ANSWER


def test_an_answer_that_drips_is_not_waited_for(tmp_path, monkeypatch, receiver):
    monkeypatch.setattr(otlp, "CLOSE_SECONDS", 0.3)
    most, written, over = 60, 0, threading.Event()

    def drip(request):
        nonlocal written
        request.send_response(200)
        request.send_header("content-length", "100000")
        request.end_headers()
        try:
            while written < most and not over.wait(0.1):
                written += request.wfile.write(b"x")
        except OSError:
            request.close_connection = True

    receiver.answer = drip
    assert pusher(tmp_path, monkeypatch, receiver.url).push()
    over.set()
    assert written < most


class Raises(MetricExporter):
    def export(self, *_, **__):
        raise RuntimeError("an exporter's fault")

    def force_flush(self, timeout_millis=0):
        return True

    def shutdown(self, timeout_millis=0, **_):
        pass


class Keeps(Raises):
    def __init__(self):
        super().__init__()
        self.taken = []

    def export(self, metrics_data, *_, **__):
        self.taken.append(metrics_data)
        return MetricExportResult.SUCCESS


def test_an_exporter_that_raises_costs_the_push_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "20")
    before = failed()
    made = Pusher("push", str(tmp_path), exporter=Raises())
    made.start()
    eventually(lambda: failed() >= before + 3, "three failed pushes")
    assert made.close()


def test_a_directory_that_cannot_be_read_is_a_failed_push(tmp_path):
    before = failed()
    made = Pusher("push", str(tmp_path), take=Raises().export, exporter=Keeps())
    assert not made.push()
    assert failed() == before + 1


def test_what_is_pushed_and_where_to_can_be_given(tmp_path):
    taken, keeps = [], Keeps()
    source = Source(Config(service="given", directory=str(tmp_path)))

    def take():
        taken.append(source.take())
        return taken[-1]

    assert Pusher("push", str(tmp_path / "another"), take=take, exporter=keeps).push()
    assert (len(taken), len(keeps.taken)) == (1, 1)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("", 60), (" ", 60), ("1", 0.001), (" 250.5 ", 0.2505), ("86400000", 86_400)],
)
def test_the_period_is_in_milliseconds(monkeypatch, value, seconds):
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", value)
    assert otlp.interval() == seconds


@pytest.mark.parametrize("value", ["0", "0.9", "86400001", "-1", "soon", "nan", "1e99"])
def test_a_period_that_is_none_is_refused(tmp_path, monkeypatch, value):
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", value)
    with pytest.raises(ConfigError, match="OTEL_METRIC_EXPORT_INTERVAL"):
        Pusher("push", str(tmp_path), exporter=Keeps())


@pytest.mark.parametrize(
    "name", ["OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL"]
)
def test_another_protocol_is_refused_by_name(tmp_path, monkeypatch, name):
    monkeypatch.setenv(name, "grpc")
    result = CliRunner().invoke(cli, ["serve", "--otlp", "--directory", str(tmp_path)])
    assert result.exit_code == 2
    assert f"{name}='grpc'" in result.output


def test_the_protocol_of_metrics_goes_before_the_general_one(tmp_path, monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "http/protobuf")
    Pusher("push", str(tmp_path), exporter=Keeps())


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("TEMPORALITY_PREFERENCE", "DELTA", "delta is not heeded: it stays cumulative"),
        ("TEMPORALITY_PREFERENCE", "lowmemory", "lowmemory is not heeded: it stays cumulative"),
        ("TEMPORALITY_PREFERENCE", "Cumulative", None),
        ("TEMPORALITY_PREFERENCE", "", None),
        (
            "DEFAULT_HISTOGRAM_AGGREGATION",
            "base2_exponential_bucket_histogram",
            "base2_exponential_bucket_histogram is not heeded: it stays explicit_bucket_histogram",
        ),
    ],
)
def test_a_form_that_the_numbers_do_not_have_is_said_to_be_unheeded(
    tmp_path, monkeypatch, caplog, name, value, told
):
    name = f"OTEL_EXPORTER_OTLP_METRICS_{name}"
    monkeypatch.setenv(name, value)
    Pusher("test", str(tmp_path))
    ours = [r.getMessage() for r in caplog.records if r.name == "ws_lifecycle_metrics"]
    assert ours == ([] if told is None else [f"{name}={told}"])


def test_the_resource_can_be_named_from_outside(monkeypatch):
    assert otlp.resource("chat").attributes["service.name"] == "chat"
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.instance.id=7,service.name=other")
    found = otlp.resource("chat").attributes
    assert (found["service.name"], found["service.instance.id"]) == ("other", "7")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "third")
    assert otlp.resource("chat").attributes["service.name"] == "third"


@pytest.mark.slow
def test_a_sidecar_with_a_silent_collector_serves_and_ends_in_time(tmp_path):
    log = tmp_path / "sidecar.log"
    with silent() as url, sidecar(tmp_path, log, OTEL_EXPORTER_OTLP_ENDPOINT=url) as (address, own):
        with urllib.request.urlopen(f"{address}/metrics", timeout=30) as answer:
            assert from_prometheus(answer.read().decode())
        started = time.monotonic()
        own.terminate()
        assert own.wait(30) == 0
        assert time.monotonic() - started < 8
    assert "the last push over OTLP is lost" in log.read_text()


def test_a_failed_push_is_counted_where_the_sidecar_is_scraped(tmp_path):
    url = f"http://{HOST}:{free_port()}"
    variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": url, "OTEL_EXPORTER_OTLP_TIMEOUT": "0.2"}
    with sidecar(tmp_path, tmp_path / "log", **variables) as (address, _):

        def counted():
            with urllib.request.urlopen(f"{address}/metrics", timeout=30) as answer:
                found = from_prometheus(answer.read().decode())
            name = "ws_lifecycle_metrics_otlp_pushes_total"
            return found[name, frozenset({("result", "failed")})]

        assert eventually(counted, "a failed push") >= 1
