"""Samples as Prometheus sees them, from its own text and from OTLP, to be compared."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING

from prometheus_client.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
        ExportMetricsServiceRequest,
    )
    from opentelemetry.proto.common.v1.common_pb2 import KeyValue
    from opentelemetry.proto.metrics.v1.metrics_pb2 import HistogramDataPoint, Metric

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]

SUFFIXES = {"s": "_seconds", "By": "_bytes"}


def from_prometheus(text: str) -> Samples:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def from_otlp(request: ExportMetricsServiceRequest) -> Samples:
    """Translate as the specification "Prometheus and OpenMetrics Compatibility" asks."""
    found: Samples = {}
    for resource in request.resource_metrics:
        for scope in resource.scope_metrics:
            if scope.scope.name == "ws_lifecycle_metrics":
                for metric in scope.metrics:
                    found.update(_translate(metric))
    return found


def prometheus_name(name: str, unit: str, counter: bool) -> str:
    base = name.replace(".", "_")
    suffix = SUFFIXES.get(unit, "")
    if not base.endswith(suffix):
        base += suffix
    return base + "_total" if counter else base


def _translate(metric: Metric) -> Samples:
    name = prometheus_name(metric.name, metric.unit, metric.WhichOneof("data") == "sum")
    if metric.HasField("histogram"):
        assert metric.histogram.aggregation_temporality == 2, "cumulative"
        found: Samples = {}
        for point in metric.histogram.data_points:
            found.update(_histogram(name, point))
        return found
    if metric.HasField("sum"):
        assert metric.sum.is_monotonic
        assert metric.sum.aggregation_temporality == 2, "cumulative"
    points = (metric.sum if metric.HasField("sum") else metric.gauge).data_points
    return {
        (name, _labels(point.attributes)): float(
            point.as_int if point.HasField("as_int") else point.as_double
        )
        for point in points
    }


def _histogram(name: str, point: HistogramDataPoint) -> Samples:
    labels = _labels(point.attributes)
    bounds = [*map(str, point.explicit_bounds), "+Inf"]
    found = {
        (f"{name}_bucket", labels | {("le", bound)}): float(count)
        for bound, count in zip(bounds, accumulate(point.bucket_counts), strict=True)
    }
    found[f"{name}_count", labels] = float(point.count)
    found[f"{name}_sum", labels] = point.sum
    return found


def _labels(attributes: list[KeyValue]) -> frozenset[tuple[str, str]]:
    return frozenset((a.key.replace(".", "_"), a.value.string_value) for a in attributes)
