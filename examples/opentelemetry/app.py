"""An echo whose workers each export their traces and metrics over OTLP.

    uvicorn --workers 2 examples.opentelemetry.app:app

OTEL_EXPORTER_OTLP_ENDPOINT says where to."""

from __future__ import annotations

import asyncio

from opentelemetry import metrics, trace
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from examples.uvicorn.app import serve
from ws_lifecycle_metrics import LifecycleMiddleware
from ws_lifecycle_metrics.telemetry.otel_metrics import LifecycleMetricExporter, observe
from ws_lifecycle_metrics.telemetry.shutdown import shutdown


async def app(scope, receive, send):
    if scope["type"] != "lifespan":
        return await echo(scope, receive, send)
    # In the worker's own process: a provider does not survive a fork.
    traces = TracerProvider(shutdown_on_exit=False)
    traces.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(traces)
    reader = PeriodicExportingMetricReader(LifecycleMetricExporter(OTLPMetricExporter()))
    numbers = MeterProvider([reader], shutdown_on_exit=False)
    metrics.set_meter_provider(numbers)
    observe()
    await echo(scope, receive, send)
    return await asyncio.to_thread(shutdown, traces, numbers)


echo = LifecycleMiddleware(serve)
