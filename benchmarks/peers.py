"""The candidates: this project and its peers, each as its own documentation says to use it.

A candidate's `wrap` runs only in the environment that has its packages; nothing of a peer is
imported before. What would leave the process goes to nothing, or to the sink of `places.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .echo import App
from .measure import OURS

SERVERS = ("uvicorn[standard]", "granian")
SINK, FOLDER = "{sink}", "{folder}"
"""Stand in a candidate's environment for the address that takes what it sends, and its folder."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """Something that observes an ASGI application.

    `packages` are what pip installs, in the newest version; with none it runs in this project's
    environment. `oldest` is the first Python that they support.
    """

    name: str
    wrap: Callable[[App], App]
    packages: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    oldest: tuple[int, int] = (3, 11)

    @property
    def distributions(self) -> tuple[str, ...]:
        """The names of the packages whose versions are told."""
        return tuple(package.partition("[")[0] for package in self.packages)


def _ours(app: App) -> App:
    from ws_lifecycle_metrics import Config, LifecycleMiddleware

    return LifecycleMiddleware(app, config=Config(service="bench"))


def _metrics() -> tuple[Any, ...]:
    """Return what one would count by hand: messages, bytes, open ones, handshakes, durations."""
    from prometheus_client import Counter, Gauge, Histogram

    return (
        Counter("ws_messages", "Messages.", ("http_route", "direction")),
        Counter("ws_bytes", "Bytes.", ("http_route", "direction")),
        Gauge("ws_active", "Open connections.", ("http_route",)),
        Counter("ws_handshakes", "Handshakes.", ("http_route",)),
        Histogram("ws_duration", "Seconds.", ("http_route",)),
    )


def _prebound(app: App) -> App:
    messages, size, active, opened, lasted = _metrics()
    received, sent = (messages.labels("/chat", way).inc for way in ("received", "sent"))
    bytes_in, bytes_out = (size.labels("/chat", way).inc for way in ("received", "sent"))
    active, opened, lasted = (metric.labels("/chat") for metric in (active, opened, lasted))

    async def wrapped(scope: Any, receive: Any, send: Any) -> None:
        async def receiving() -> Any:
            event = await receive()
            if event["type"] == "websocket.receive":
                received()
                bytes_in(len(event["text"]))
            return event

        async def sending(event: Any) -> None:
            await send(event)
            if event["type"] == "websocket.send":
                sent()
                bytes_out(len(event["text"]))
            elif event["type"] == "websocket.accept":
                opened.inc()

        with active.track_inprogress(), lasted.time():
            await app(scope, receiving, sending)

    return wrapped


def _labelled(app: App) -> App:
    messages, size, active, opened, lasted = _metrics()

    async def wrapped(scope: Any, receive: Any, send: Any) -> None:
        async def receiving() -> Any:
            event = await receive()
            if event["type"] == "websocket.receive":
                messages.labels("/chat", "received").inc()
                size.labels("/chat", "received").inc(len(event["text"]))
            return event

        async def sending(event: Any) -> None:
            await send(event)
            if event["type"] == "websocket.send":
                messages.labels("/chat", "sent").inc()
                size.labels("/chat", "sent").inc(len(event["text"]))
            elif event["type"] == "websocket.accept":
                opened.labels("/chat").inc()

        with active.labels("/chat").track_inprogress(), lasted.labels("/chat").time():
            await app(scope, receiving, sending)

    return wrapped


def opentelemetry_asgi(app: App, *, sampled: bool) -> App:
    """Wrap by opentelemetry-instrumentation-asgi, its spans in a batch that is thrown away."""
    from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware

    return OpenTelemetryMiddleware(app, tracer_provider=provider(sampled=sampled))


def provider(*, sampled: bool) -> Any:
    """Return a TracerProvider whose spans are batched, exported by a thread, and dropped there."""
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
    from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON

    class Discard(SpanExporter):
        def export(self, spans: Any) -> SpanExportResult:
            return SpanExportResult.SUCCESS

    made = TracerProvider(sampler=ALWAYS_ON if sampled else ALWAYS_OFF, shutdown_on_exit=False)
    made.add_span_processor(BatchSpanProcessor(Discard(), max_queue_size=65536))
    return made


def _ddtrace(app: App) -> App:
    from ddtrace.contrib.asgi import TraceMiddleware

    wrapped: App = TraceMiddleware(app)
    return wrapped


def _sentry(app: App, rate: float | None) -> App:
    import sentry_sdk
    from sentry_sdk.integrations.asgi import SentryAsgiMiddleware
    from sentry_sdk.transport import Transport

    class Discard(Transport):  # type: ignore[misc]  # it is not installed where this is checked
        def capture_envelope(self, envelope: Any) -> None:
            """Drop it."""

    sentry_sdk.init(dsn="http://key@127.0.0.1:9/1", transport=Discard, traces_sample_rate=rate)
    wrapped: App = SentryAsgiMiddleware(app)
    return wrapped


def _logfire(app: App, *, messages: bool) -> App:
    import logfire

    logfire.configure(send_to_logfire=False, console=False)
    wrapped: App = logfire.instrument_asgi(app, record_send_receive=messages)
    return wrapped


def _litestar(app: App) -> App:
    from litestar.plugins.prometheus import PrometheusConfig, PrometheusMiddleware

    wrapped: App = PrometheusMiddleware(app, PrometheusConfig())
    return wrapped


def _asgion(app: App, *, trace: bool) -> App:
    import asgion

    wrapped: App = asgion.Inspector(app, trace=True) if trace else asgion.inspect(app)
    return wrapped


_PROMETHEUS = ("prometheus-client", *SERVERS)
_MULTIPROCESS = {"PROMETHEUS_MULTIPROC_DIR": FOLDER}
_OTEL = ("opentelemetry-instrumentation-asgi", "opentelemetry-sdk", *SERVERS)
_DATADOG = {
    "DD_TRACE_AGENT_URL": SINK,
    # What it would tell its makers, or let them configure, stays off: nothing leaves the machine.
    "DD_INSTRUMENTATION_TELEMETRY_ENABLED": "false",
    "DD_REMOTE_CONFIGURATION_ENABLED": "false",
}

CANDIDATES: Mapping[str, Candidate] = {
    "ours": Candidate(
        name=OURS,
        wrap=_ours,
        environment={"WS_LIFECYCLE_DIRECTORY": FOLDER},
    ),
    "prometheus-prebound": Candidate(
        name="prometheus_client, pre-bound", wrap=_prebound, packages=_PROMETHEUS
    ),
    "prometheus-labelled": Candidate(
        name="prometheus_client, .labels().inc()", wrap=_labelled, packages=_PROMETHEUS
    ),
    "prometheus-multiprocess": Candidate(
        name="prometheus_client, pre-bound, multiprocess mode",
        wrap=_prebound,
        packages=_PROMETHEUS,
        environment=_MULTIPROCESS,
    ),
    "prometheus-multiprocess-labelled": Candidate(
        name="prometheus_client, .labels().inc(), multiprocess mode",
        wrap=_labelled,
        packages=_PROMETHEUS,
        environment=_MULTIPROCESS,
    ),
    "litestar": Candidate(
        name="Litestar's Prometheus middleware",
        wrap=_litestar,
        packages=("litestar[prometheus]", *SERVERS),
    ),
    "asgion": Candidate(
        name="asgion, inspect",
        wrap=lambda app: _asgion(app, trace=False),
        packages=("asgion", *SERVERS),
        oldest=(3, 12),
    ),
    "asgion-trace": Candidate(
        name="asgion, trace",
        wrap=lambda app: _asgion(app, trace=True),
        packages=("asgion", *SERVERS),
        oldest=(3, 12),
    ),
    "otel-unsampled": Candidate(
        name="OpenTelemetry ASGI, unsampled",
        wrap=lambda app: opentelemetry_asgi(app, sampled=False),
        packages=_OTEL,
    ),
    "otel-sampled": Candidate(
        name="OpenTelemetry ASGI, sampled",
        wrap=lambda app: opentelemetry_asgi(app, sampled=True),
        packages=_OTEL,
    ),
    "sentry": Candidate(
        name="sentry-sdk, errors only",
        wrap=lambda app: _sentry(app, None),
        packages=("sentry-sdk", *SERVERS),
    ),
    "sentry-traces": Candidate(
        name="sentry-sdk, traces sampled",
        wrap=lambda app: _sentry(app, 1.0),
        packages=("sentry-sdk", *SERVERS),
    ),
    "logfire": Candidate(
        name="logfire",
        wrap=lambda app: _logfire(app, messages=False),
        packages=("logfire[asgi]", *SERVERS),
    ),
    "logfire-messages": Candidate(
        name="logfire, messages recorded",
        wrap=lambda app: _logfire(app, messages=True),
        packages=("logfire[asgi]", *SERVERS),
    ),
    "ddtrace": Candidate(
        name="ddtrace", wrap=_ddtrace, packages=("ddtrace", *SERVERS), environment=_DATADOG
    ),
}
