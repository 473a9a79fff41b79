"""Metrics in the application's own process, through the user's MeterProvider and exporter."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import threading
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import metrics
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    InMemoryMetricReader,
    MetricExporter,
    MetricExportResult,
    PeriodicExportingMetricReader,
    Sum,
)
from opentelemetry.sdk.resources import Resource
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.host import MIXED, operate
from tests.telemetry.harness import ACCEPT, CONNECT, DISCONNECT, Tracing, echo, say, text
from ws_lifecycle_metrics import catalog
from ws_lifecycle_metrics.catalog import METRICS, Kind, attribute
from ws_lifecycle_metrics.store.snapshot import Source
from ws_lifecycle_metrics.store.workers import existing
from ws_lifecycle_metrics.telemetry import logs, otel_metrics
from ws_lifecycle_metrics.telemetry.otel_metrics import (
    LifecycleMetricExporter,
    metrics_data,
    observe,
)
from ws_lifecycle_metrics.telemetry.prometheus import render

CLOCKS = {m.prometheus for m in METRICS.values() if m.name.endswith("_timestamp")}
"""Moments that are computed from two clocks, read one after the other."""

VOLATILE = {catalog.EXPORTER_TIME.prometheus, catalog.COLLECT_DURATION.prometheus, *CLOCKS}


KERNEL = {"asgi.worker.sockets", "asgi.worker.accept_queue"}
"""What the sidecar alone reads: without a series, an instrument makes no metric."""


class Memory(MetricExporter):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.taken: list[Any] = []
        self.times: list[float] = []
        self.ended = False

    def export(self, metrics_data: Any, timeout_millis: float = 0, **_: Any) -> MetricExportResult:
        self.taken.append(metrics_data)
        self.times.append(timeout_millis)
        return MetricExportResult.SUCCESS

    def force_flush(self, timeout_millis: float = 0) -> bool:
        self.times.append(timeout_millis)
        return True

    def shutdown(self, timeout_millis: float = 0, **_: Any) -> None:
        self.times.append(timeout_millis)
        self.ended = True


def metrics_of(data: Any) -> dict[str, Any]:
    return {
        metric.name: metric
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        if scope.scope.name == "ws_lifecycle_metrics"
        for metric in scope.metrics
    }


def samples(data: Any) -> dict[Any, float]:
    """Return what Prometheus would see of exported data."""
    found = {}
    for metric in metrics_of(data).values():
        name = METRICS[metric.name].prometheus
        for point in metric.data.data_points:
            labels = frozenset((k.replace(".", "_"), v) for k, v in point.attributes.items())
            if not isinstance(metric.data, Histogram):
                found[name, labels] = point.value
                continue
            bounds = [*map(str, point.explicit_bounds), "+Inf"]
            for bound, count in zip(bounds, accumulate(point.bucket_counts), strict=True):
                found[f"{name}_bucket", labels | {("le", bound)}] = count
            found[f"{name}_count", labels] = point.count
            found[f"{name}_sum", labels] = point.sum
    return found


def exposed(config: Any) -> dict[Any, float]:
    body, _ = render(Source(config).take)
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


async def breaks(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send(ACCEPT)
    await send({"type": "websocket.close", "code": 4409})
    await send(say("too late"))


async def operates(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send(ACCEPT)
    await operate(MIXED)
    await receive()


@pytest.fixture
def tracing(tmp_path):
    made = Tracing(tmp_path)
    made.run(echo, CONNECT, text("ä"), text(), DISCONNECT)
    made.run(breaks, CONNECT, path="/breaks")
    made.run(operates, CONNECT, DISCONNECT, path="/graphql")
    # Else the watchdog's thread sees that the loop was stopped, maybe between two readings.
    existing(made.config).watch.heartbeat.loop = None
    return made


@pytest.fixture
def exporter():
    return Memory()


@pytest.fixture
def provider(tracing, exporter):
    wrapped = LifecycleMetricExporter(exporter, tracing.config)
    reader = PeriodicExportingMetricReader(wrapped, export_interval_millis=float("inf"))
    made = MeterProvider([reader], shutdown_on_exit=False)
    observe(made, tracing.config)
    yield made
    made.shutdown()


def collected(provider, exporter):
    provider.force_flush()
    return exporter.taken[-1]


def test_the_whole_catalogue_goes_through_the_users_provider(tracing, provider, exporter):
    assert metrics_of(collected(provider, exporter)).keys() == METRICS.keys() - KERNEL


def test_each_sample_is_as_prometheus_sees_it(tracing, provider, exporter):
    seen, prometheus = samples(collected(provider, exporter)), exposed(tracing.config)
    assert seen.keys() == prometheus.keys()
    different = {
        key: (value, seen[key])
        for key, value in prometheus.items()
        if key[0] not in VOLATILE and seen[key] != value
    }
    assert different == {}


def test_each_metric_is_what_the_catalogue_says(provider, exporter):
    kinds = {Kind.COUNTER: Sum, Kind.GAUGE: Gauge, Kind.HISTOGRAM: Histogram}
    for name, metric in metrics_of(collected(provider, exporter)).items():
        assert type(metric.data) is kinds[METRICS[name].kind], name
        if type(metric.data) is Sum:
            assert metric.data.is_monotonic
            assert metric.data.aggregation_temporality is AggregationTemporality.CUMULATIVE


def test_nothing_is_lost_on_the_way_to_otlp(provider, exporter):
    data = collected(provider, exporter)
    encoded = encode_metrics(data)
    names = [m.name for r in encoded.resource_metrics for s in r.scope_metrics for m in s.metrics]
    assert sorted(names) == sorted(METRICS.keys() - KERNEL)
    assert len(data.resource_metrics[0].scope_metrics) == 1  # other encoders would send all of them


def test_units_and_help_are_the_catalogues(provider, exporter):
    for name, metric in metrics_of(collected(provider, exporter)).items():
        assert (metric.unit, metric.description) == (METRICS[name].unit, METRICS[name].help)


def test_the_whole_as_data_is_the_same(tracing):
    snapshot = Source(tracing.config).take()
    data = metrics_data(snapshot, Resource({}))
    assert metrics_of(data).keys() == METRICS.keys()
    prometheus = exposed(tracing.config)
    assert samples(data).keys() == prometheus.keys()


def test_everything_is_cumulative_since_the_segment_was_made(tracing):
    snapshot = Source(tracing.config).take_own()
    data = metrics_data(snapshot, Resource({}))
    for name, metric in metrics_of(data).items():
        if METRICS[name].kind is not Kind.GAUGE:
            assert metric.data.aggregation_temporality is AggregationTemporality.CUMULATIVE
            for point in metric.data.data_points:
                assert point.start_time_unix_nano == snapshot.since < point.time_unix_nano


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("http_route", "http.route"),
        ("graphql_operation_name", "graphql.operation.name"),
        ("graphql_operation_type", "graphql.operation.type"),
        ("state", "state"),
        ("worker", "worker"),
    ],
)
def test_labels_have_the_names_of_the_conventions(label, name):
    assert attribute(label) == name


def test_the_users_own_metrics_and_resource_stay(tracing, exporter):
    wrapped = LifecycleMetricExporter(exporter, tracing.config)
    reader = PeriodicExportingMetricReader(wrapped, export_interval_millis=float("inf"))
    provider = MeterProvider([reader], Resource({"service.name": "mine"}), shutdown_on_exit=False)
    provider.get_meter("mine").create_counter("orders").add(3)
    data = collected(provider, exporter)
    (resource,) = data.resource_metrics
    assert resource.resource.attributes["service.name"] == "mine"
    assert [scope.scope.name for scope in resource.scope_metrics] == [
        "mine",
        "ws_lifecycle_metrics",
    ]
    assert [metric.name for metric in resource.scope_metrics[0].metrics] == ["orders"]
    assert "orders" not in metrics_of(data)
    provider.shutdown()
    assert exporter.ended


def test_the_exporters_preferences_are_the_readers(tracing):
    from opentelemetry.sdk.metrics import Counter
    from opentelemetry.sdk.metrics.view import DropAggregation

    delta, drop = {Counter: AggregationTemporality.DELTA}, {Counter: DropAggregation()}
    exporter = Memory(preferred_temporality=delta, preferred_aggregation=drop)
    wrapped = LifecycleMetricExporter(exporter, tracing.config)
    assert (wrapped._preferred_temporality, wrapped._preferred_aggregation) == (delta, drop)


def test_the_exporter_has_as_long_as_it_was_given(provider, exporter):
    wrapped = LifecycleMetricExporter(exporter)
    data = collected(provider, exporter)
    exporter.times.clear()
    assert wrapped.export(data, timeout_millis=1) is MetricExportResult.SUCCESS
    assert wrapped.force_flush(2)
    wrapped.shutdown(timeout_millis=3)
    assert exporter.times == [1, 2, 3]


def test_a_second_call_for_one_provider_does_nothing(
    tracing, provider, exporter, recwarn, caplog, monkeypatch
):
    monkeypatch.setattr(logs, "_said", set())
    before = samples(collected(provider, exporter)).keys()
    observe(provider, tracing.config)
    assert samples(collected(provider, exporter)).keys() == before
    assert not recwarn.list
    assert not caplog.records


LATE = """
import sys
from pathlib import Path

from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from tests.telemetry.harness import CONNECT, DISCONNECT, Tracing, echo
from tests.telemetry.test_otel_metrics import samples
from ws_lifecycle_metrics.telemetry.otel_metrics import observe

tracing = Tracing(Path(sys.argv[1]))
observe()
observe()
reader = InMemoryMetricReader()
metrics.set_meter_provider(MeterProvider([reader], shutdown_on_exit=False))
tracing.run(echo, CONNECT, DISCONNECT)
seen = samples(reader.get_metrics_data())
print(sum(v for (name, _), v in seen.items() if name == "websocket_server_handshakes_total"))
"""


def test_the_global_provider_may_be_set_later(tmp_path):
    command = [sys.executable, "-c", LATE, str(tmp_path)]
    root = Path(__file__).parents[2]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False, cwd=root
    )
    assert (done.stdout, done.stderr) == ("1\n", "")


def test_a_second_service_for_one_provider_is_refused_with_a_word(tmp_path, caplog):
    """The SDK gives back the instruments that it has, and forgets who is to be asked."""
    first, second = Tracing(tmp_path / "1"), Tracing(tmp_path / "2")
    for tracing in (first, second):
        tracing.run(echo, CONNECT, DISCONNECT)
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    observe(provider, first.config)
    observe(provider)  # the same, as far as it goes
    assert caplog.records == []
    observe(provider, second.config)
    (record,) = caplog.records
    assert "a provider of its own" in record.message
    key = (
        "websocket_server_handshakes_total",
        frozenset({("http_route", "/chat"), ("result", "accepted")}),
    )
    assert samples(reader.get_metrics_data())[key] == 1


@dataclass
class Hashless(metrics.MeterProvider):
    """A provider that wraps another one and is compared by value, so that it has no hash."""

    inner: MeterProvider

    def get_meter(self, *arguments: Any, **options: Any) -> metrics.Meter:
        return self.inner.get_meter(*arguments, **options)


def test_a_provider_without_a_hash_is_observed_once(tracing, caplog):
    reader = InMemoryMetricReader()
    wrapped = Hashless(MeterProvider([reader], shutdown_on_exit=False))
    for _ in range(2):
        observe(wrapped, tracing.config)
    assert metrics_of(reader.get_metrics_data()).keys() < METRICS.keys()
    assert caplog.records == []


@pytest.mark.parametrize("named", [True, False], ids=["its service named", "the middleware's"])
def test_a_second_provider_sees_the_same(tracing, provider, exporter, named):
    reader = InMemoryMetricReader()
    second = MeterProvider([reader], shutdown_on_exit=False)
    observe(second, tracing.config if named else None)
    first = samples(collected(provider, exporter))
    seen = samples(reader.get_metrics_data())
    assert seen
    for key, value in seen.items():
        if key[0] not in VOLATILE:
            assert first[key] == value


@pytest.mark.parametrize("part", ["observe", "exporter"])
def test_a_fault_of_ours_leaves_the_users_metrics_alone(
    tracing, exporter, caplog, monkeypatch, part
):
    monkeypatch.setattr(logs, "_limit", logs.RateLimit())

    def broken() -> Any:
        raise OSError("no descriptors left")

    wrapped = LifecycleMetricExporter(exporter, take=broken) if part == "exporter" else exporter
    reader = PeriodicExportingMetricReader(wrapped, export_interval_millis=float("inf"))
    provider = MeterProvider([reader], shutdown_on_exit=False)
    if part == "observe":
        observe(provider, tracing.config, take=broken)
    provider.get_meter("mine").create_counter("orders").add(3)
    data = collected(provider, exporter)
    assert [scope.scope.name for scope in data.resource_metrics[0].scope_metrics] == ["mine"]
    assert "a fault in ws_lifecycle_metrics" in caplog.text
    provider.shutdown()


def test_an_exporter_that_raises_is_the_readers_business(tracing):
    class Raises(Memory):
        def export(self, *_: Any, **__: Any) -> MetricExportResult:
            raise RuntimeError("theirs")

    wrapped = LifecycleMetricExporter(Raises(), tracing.config)
    reader = PeriodicExportingMetricReader(wrapped, export_interval_millis=float("inf"))
    provider = MeterProvider([reader], shutdown_on_exit=False)
    observe(provider, tracing.config)
    provider.force_flush()
    tracing.run(echo, CONNECT, DISCONNECT)
    provider.shutdown()


def test_only_this_process_is_read(tracing, provider, exporter):
    """Every worker exports for itself: what others count must not be added again."""
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=count_elsewhere, args=(tracing.config.directory,))
    process.start()
    process.join(60)
    assert process.exitcode == 0
    key = (
        "websocket_server_handshakes_total",
        frozenset({("http_route", "/chat"), ("result", "accepted")}),
    )
    assert exposed(tracing.config)[key] == 2
    assert samples(collected(provider, exporter))[key] == 1


def count_elsewhere(directory: str) -> None:
    Tracing(directory).run(echo, CONNECT, DISCONNECT)  # type: ignore[arg-type]  # a str will do


def test_one_reading_serves_all_instruments_of_a_collection(tracing, monkeypatch):
    taken = []

    def take() -> Any:
        taken.append(threading.get_ident())
        return Source(tracing.config).take_own()

    monkeypatch.setattr(otel_metrics, "FRESH", 60.0)
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    observe(provider, tracing.config, take=take)
    reader.get_metrics_data()
    assert len(taken) == 1


def test_exemplars_are_on_the_points(tracing, provider, exporter):
    metric = metrics_of(collected(provider, exporter))["websocket.server.handshake.duration"]
    points = metric.data.data_points
    found = {(e.trace_id, e.span_id) for point in points for e in point.exemplars}
    assert found <= {(span.context.trace_id, span.context.span_id) for span in tracing.spans}
    assert found
