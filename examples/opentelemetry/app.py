"""An echo whose workers each export their traces and metrics over OTLP.

    uvicorn --workers 2 examples.opentelemetry.app:app

OTEL_EXPORTER_OTLP_ENDPOINT says where to.
"""

import asyncio

from opentelemetry import metrics, trace
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from ws_lifecycle_metrics import LifecycleMiddleware
from ws_lifecycle_metrics.telemetry.otel_metrics import LifecycleMetricExporter, observe
from ws_lifecycle_metrics.telemetry.shutdown import shutdown


@LifecycleMiddleware
async def app(scope, receive, send):
    await receive()  # lifespan.startup, or websocket.connect
    if scope["type"] == "lifespan":  # in the worker's own process: no provider survives a fork
        traces = TracerProvider(shutdown_on_exit=False)
        traces.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        trace.set_tracer_provider(traces)
        reader = PeriodicExportingMetricReader(LifecycleMetricExporter(OTLPMetricExporter()))
        metrics.set_meter_provider(numbers := MeterProvider([reader], shutdown_on_exit=False))
        observe()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await asyncio.to_thread(shutdown, traces, numbers)
        await send({"type": "lifespan.shutdown.complete"})
    elif scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
        while (event := await receive())["type"] == "websocket.receive":
            await send({**event, "type": "websocket.send"})
