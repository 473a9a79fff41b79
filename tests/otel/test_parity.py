"""What arrives over OTLP, through a real collector, is what Prometheus sees."""

from __future__ import annotations

import signal
import urllib.request

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)

from tests.otel.collector import eventually
from tests.otel.samples import from_otlp, from_prometheus, prometheus_name
from ws_lifecycle_metrics import catalog
from ws_lifecycle_metrics.catalog import METRICS, Kind

pytestmark = pytest.mark.slow

VOLATILE = {
    metric.prometheus
    for metric in (catalog.EXPORTER_TIME, catalog.COLLECT_DURATION, catalog.OTLP_PUSHES)
}
"""What differs from one collection to the next: its time, how long it took, and their number."""

CLOCKS = {m.prometheus for m in METRICS.values() if m.name.endswith("_timestamp")}
"""Moments that are computed from two clocks, read one after the other: equal to 50 ms."""


def pushed(stack):
    """Return all that the latest whole push held; the collector may have split it."""
    arrived = len(stack.receiver.metrics)
    wanted = {metric.name for metric in METRICS.values()}

    def whole():
        merged = ExportMetricsServiceRequest()
        for request in stack.receiver.metrics[arrived:]:
            merged.MergeFrom(request)
        names = {
            m.name for r in merged.resource_metrics for s in r.scope_metrics for m in s.metrics
        }
        return merged if names >= wanted else None

    return eventually(whole, "a push")


def scrape(stack):
    with urllib.request.urlopen(f"{stack.address}/metrics", timeout=30) as answer:
        return from_prometheus(answer.read().decode())


def differences(prometheus, otlp):
    return {
        key: (prometheus.get(key), otlp.get(key))
        for key in prometheus.keys() | otlp.keys()
        if key[0] not in VOLATILE | CLOCKS and prometheus.get(key) != otlp.get(key)
    }


def stuck(samples, reason):
    return sum(
        value
        for (name, labels), value in samples.items()
        if name == "asgi_worker_stuck" and ("reason", reason) in labels
    )


@pytest.fixture(scope="module")
def seen(stack):
    """Both sides. The workers stand still, or their heartbeats would go on between the two.

    The sidecar itself may still learn something between them (that they stand still, what the
    kernel says), so both are taken again until nothing changes any more.
    """
    eventually(lambda: stuck(from_otlp(pushed(stack)), "loop_blocked") == 1, "the hung worker")
    for worker in stack.workers:
        worker.send_signal(signal.SIGSTOP)
    eventually(lambda: stuck(from_otlp(pushed(stack)), "stopped") == 3, "three that stand still")
    for _ in range(20):
        both = scrape(stack), from_otlp(pushed(stack))
        if not differences(*both) and both[0].keys() == scrape(stack).keys():
            break
    return both


def test_every_sample_name_and_label_set_is_the_same(seen):
    prometheus, otlp = seen
    assert sorted(map(str, prometheus.keys() - otlp.keys())) == []
    assert sorted(map(str, otlp.keys() - prometheus.keys())) == []
    assert len(prometheus) > 900


def test_every_value_is_the_same(seen):
    prometheus, otlp = seen
    assert differences(prometheus, otlp) == {}
    for key, value in prometheus.items():
        if key[0] in CLOCKS:
            assert otlp[key] == pytest.approx(value, abs=0.05)


def test_the_traffic_is_in_it(seen):
    """Equal zeros would prove nothing."""
    _, otlp = seen

    def total(metric, **labels):
        return sum(
            value
            for (name, have), value in otlp.items()
            if name == metric and labels.items() <= dict(have).items()
        )

    assert total("websocket_server_handshakes_total", result="accepted") == 4 * 4 + 10
    assert total("websocket_server_handshakes_total", result="rejected") == 4
    assert total("websocket_server_received_messages_total", http_route="/echo") == 20
    assert total("websocket_server_lost_connections_total") == 2
    assert total("websocket_server_protocol_violations_total", rule="app.send-after-close") == 4
    assert total("websocket_server_app_errors_total", http_route="/fails") == 4
    assert total("websocket_server_active_connections", subprotocol="graphql-transport-ws") == 3
    assert total("websocket_server_send_duration_seconds_count", http_route="/echo") == 20
    assert total("graphql_server_requests_total") == 4 * 10
    assert total("graphql_server_subscription_ends_total", reason="completed") == 4 * 4
    assert total("asgi_worker_stuck", reason="stopped") == 3


def test_a_worker_that_hangs_is_reported_too(seen):
    _, otlp = seen
    assert (
        otlp[
            "websocket_server_received_messages_total",
            frozenset({("http_route", "/worker/3"), ("opcode", "text")}),
        ]
        == 0
    )
    active = frozenset({("http_route", "/worker/3"), ("state", "open"), ("subprotocol", "")})
    assert otlp["websocket_server_active_connections", active] == 1


def test_exemplars_arrive_with_their_trace(stack):
    points = [
        point
        for resource in pushed(stack).resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name == "websocket.server.connection.duration"
        for point in metric.histogram.data_points
    ]
    exemplars = [exemplar for point in points for exemplar in point.exemplars]
    assert exemplars
    assert all(len(e.trace_id) == 16 and len(e.span_id) == 8 and any(e.trace_id) for e in exemplars)


def test_the_resource_is_the_service_on_this_host(stack):
    resource = pushed(stack).resource_metrics[0].resource
    found = {a.key: a.value.string_value for a in resource.attributes}
    assert found["service.name"] == "parity"
    assert found["deployment.environment.name"] == "test"
    assert found["service.instance.id"] == found["host.name"] != ""


def test_counting_began_when_the_first_worker_did(stack):
    """Also when that one is long dead: totals that go on must not seem to have been reset."""
    starts = {
        point.start_time_unix_nano
        for _ in range(2)
        for resource in pushed(stack).resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        for point in metric.sum.data_points
    }
    assert len(starts) == 1


def test_it_came_compressed(stack):
    assert stack.receiver.encodings == {"gzip"}


@pytest.mark.parametrize("metric", METRICS.values(), ids=lambda metric: metric.name)
def test_the_standard_translation_of_a_name_is_the_catalogues(metric):
    made = prometheus_name(metric.name, metric.unit, metric.kind is Kind.COUNTER)
    assert made == metric.prometheus
