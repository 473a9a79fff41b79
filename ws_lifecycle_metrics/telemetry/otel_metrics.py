"""The catalogue as OpenTelemetry metrics, from the same words as Prometheus'.

In the application's process there are two parts, because an asynchronous histogram does not
exist: `observe` makes asynchronous counters and gauges of the user's MeterProvider, and
`LifecycleMetricExporter`, around the user's exporter, adds the histograms. Both read the
workers of this process alone. `metrics_data` is the whole catalogue at once, for a program
that exports for all workers of the host.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation
from opentelemetry.sdk.metrics import Exemplar as OtelExemplar
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    HistogramDataPoint,
    MetricExporter,
    MetricExportResult,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.metrics.export import Histogram as OtelHistogram
from opentelemetry.sdk.metrics.export import Metric as OtelMetric
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from ..catalog import METRICS, Kind, Metric, attribute
from ..config import Config
from ..store.exemplars import Exemplar
from ..store.layout import NS
from ..store.snapshot import Family, Histogram, Labels, Snapshot, Source, package_version
from .logs import log_fault, log_once
from .providers import Remembered

SCOPE = "ws_lifecycle_metrics"
CUMULATIVE = AggregationTemporality.CUMULATIVE
FRESH = 0.1
"""Seconds for which one reading serves all instruments: they are asked one by one."""

Take = Callable[[], Snapshot]


def attributes(metric: Metric, labels: Labels) -> dict[str, str]:
    """Return the attributes of a series."""
    return {attribute(name): value for name, value in zip(metric.labels, labels, strict=True)}


# As data: what the sidecar exports, and the histograms.


def metrics_data(snapshot: Snapshot, resource: Resource) -> MetricsData:
    """Return the whole catalogue, cumulative since the first of the segments was made."""
    found = [_metric(family, snapshot) for family in snapshot.families()]
    return MetricsData([ResourceMetrics(resource, [_scope(found)], "")])


def _scope(found: list[OtelMetric]) -> ScopeMetrics:
    return ScopeMetrics(InstrumentationScope(SCOPE, package_version()), found, "")


def _metric(family: Family, snapshot: Snapshot) -> OtelMetric:
    metric = family.metric
    data: Sum | Gauge | OtelHistogram
    if metric.kind is Kind.HISTOGRAM:
        data = OtelHistogram(list(_histogram_points(family, snapshot)), CUMULATIVE)
    elif metric.kind is Kind.COUNTER:
        data = Sum(list(_number_points(family, snapshot)), CUMULATIVE, is_monotonic=True)
    else:
        data = Gauge(list(_number_points(family, snapshot)))
    return OtelMetric(metric.name, metric.help, metric.unit, data)


def _number_points(family: Family, snapshot: Snapshot) -> Iterator[NumberDataPoint]:
    for labels, value in family.series.items():
        assert not isinstance(value, Histogram)
        yield NumberDataPoint(
            attributes=attributes(family.metric, labels),
            start_time_unix_nano=snapshot.since,
            time_unix_nano=round(snapshot.wall * NS),
            value=value,
        )


def _histogram_points(family: Family, snapshot: Snapshot) -> Iterator[HistogramDataPoint]:
    for labels, value in family.series.items():
        assert isinstance(value, Histogram)
        yield HistogramDataPoint(
            attributes=attributes(family.metric, labels),
            start_time_unix_nano=snapshot.since,
            time_unix_nano=round(snapshot.wall * NS),
            count=sum(value.counts),
            sum=value.sum,
            bucket_counts=value.counts,
            explicit_bounds=tuple(map(float, family.metric.buckets)),
            # Neither is known: the segments count, they do not keep.
            min=None,  # type: ignore[arg-type]  # optional in OTLP and to its encoder
            max=None,  # type: ignore[arg-type]  # as above
            exemplars=[_exemplar(one) for one in value.exemplars if one is not None],
        )


def _exemplar(one: Exemplar) -> OtelExemplar:
    moment = round(one.timestamp * NS)
    return OtelExemplar({}, one.value, moment, span_id=one.span_id, trace_id=one.trace_id)


class LifecycleMetricExporter(MetricExporter):
    """Adds the histograms of this process's workers to all that `exporter` exports.

    To be given to a `PeriodicExportingMetricReader` in the place of `exporter`. A reader of a
    provider without instruments exports nothing, so `observe` has to be called as well.
    """

    def __init__(
        self, exporter: MetricExporter, config: Config | None = None, *, take: Take | None = None
    ) -> None:
        # As readers do: an exporter's preferences are not to be had otherwise.
        super().__init__(
            preferred_temporality=exporter._preferred_temporality,
            preferred_aggregation=exporter._preferred_aggregation,
        )
        self._exporter = exporter
        self._take = Source(config).take_own if take is None else take

    def export(
        self, metrics_data: MetricsData, timeout_millis: float = 10_000, **options: Any
    ) -> MetricExportResult:
        """Export what the reader collected, and the histograms."""
        try:
            metrics_data = self._with_histograms(metrics_data)
        except Exception as error:  # noqa: BLE001  # the user's own metrics are to be exported
            log_fault(error)
        return self._exporter.export(metrics_data, timeout_millis=timeout_millis, **options)

    def _with_histograms(self, collected: MetricsData) -> MetricsData:
        first, *rest = collected.resource_metrics
        snapshot = self._take()
        found = [
            _metric(family, snapshot)
            for family in snapshot.families()
            if family.metric.kind is Kind.HISTOGRAM
        ]
        # OTLP's encoder keeps one entry a scope: ours has to go to where the instruments are.
        own = [scope for scope in first.scope_metrics if scope.scope.name == SCOPE]
        found += [metric for scope in own for metric in scope.metrics]
        scopes = [*(s for s in first.scope_metrics if s.scope.name != SCOPE), _scope(found)]
        return MetricsData([ResourceMetrics(first.resource, scopes, first.schema_url), *rest])

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        """Flush the exporter."""
        return self._exporter.force_flush(timeout_millis)

    def shutdown(self, timeout_millis: float = 30_000, **options: Any) -> None:
        """Shut the exporter down."""
        self._exporter.shutdown(timeout_millis=timeout_millis, **options)


# As asynchronous instruments.


class _Reading:
    """One snapshot for all instruments that are asked within the same collection."""

    def __init__(self, take: Take) -> None:
        self._take = take
        self._lock = threading.Lock()
        self._until = 0.0
        self._families: dict[str, Family] = {}

    def family(self, name: str) -> Family:
        with self._lock:
            if time.monotonic() >= self._until:
                self._families = {f.metric.name: f for f in self._take().families()}
                self._until = time.monotonic() + FRESH
            return self._families[name]


def _nowhere(_provider: MeterProvider) -> set[tuple[str, str] | None]:
    return set()


_observed = Remembered(_nowhere)


def observe(
    meter_provider: MeterProvider | None = None,
    config: Config | None = None,
    *,
    take: Take | None = None,
) -> None:
    """Make asynchronous counters and gauges of all that is counted in this process.

    With no provider the global one is used, which may be set later; with no `config` the service
    is the one of this process's middleware. A second call for a provider does nothing: a provider
    stands for one service, as its resource says, and has each instrument once.
    """
    provider = metrics.get_meter_provider() if meter_provider is None else meter_provider
    places = _observed.of(provider)
    place = None if config is None else (config.directory, config.service)
    if places:
        if config is not None and not places & {place, None}:
            log_once(
                "a MeterProvider observes one service alone: "
                f"{config.service!r} needs a provider of its own"
            )
        return
    places.add(place)
    meter = provider.get_meter(SCOPE, package_version())
    reading = _Reading(Source(config).take_own if take is None else take)
    for metric in METRICS.values():
        if metric.kind is Kind.HISTOGRAM:
            continue
        make = (
            meter.create_observable_counter
            if metric.kind is Kind.COUNTER
            else meter.create_observable_gauge
        )
        make(metric.name, [_callback(reading, metric)], metric.unit, metric.help)


def _callback(
    reading: _Reading, metric: Metric
) -> Callable[[CallbackOptions], Iterable[Observation]]:
    def observations(_options: CallbackOptions) -> Iterable[Observation]:
        try:
            series = reading.family(metric.name).series.items()
        except Exception as error:  # noqa: BLE001  # a failing collection must not fail the user's
            log_fault(error)
            return []
        return [
            Observation(value, attributes(metric, labels))
            for labels, value in series
            if not isinstance(value, Histogram)
        ]

    return observations
