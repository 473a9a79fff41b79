"""Pushes the numbers of all workers of a service over OTLP, from a thread of its own."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import requests
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceResponse,
)
from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult
from opentelemetry.sdk.resources import OTELResourceDetector, Resource

from ..catalog import OTLP_PUSHES
from ..config import Config, ConfigError
from ..labels import safe_label
from ..store.snapshot import Snapshot, Source
from ..store.totals import count_here
from .logs import log_push_failed
from .otel_metrics import metrics_data

INTERVAL = "OTEL_METRIC_EXPORT_INTERVAL"
PROTOCOLS = ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
SHAPES = {
    "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "cumulative",
    "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION": "explicit_bucket_histogram",
}
"""What the variables of OpenTelemetry would choose, and the one form that the words have."""
CLOSE_SECONDS = 5.0
MAX_ANSWER = 64 * 1024
"""Bytes of a collector's answer that are read; a real one has a few dozen."""

logger = logging.getLogger("ws_lifecycle_metrics")


def interval() -> float:
    """Return the seconds between two pushes, from OTEL_METRIC_EXPORT_INTERVAL in ms."""
    text = os.environ.get(INTERVAL, "").strip() or "60000"
    try:
        milliseconds = float(text)
    except ValueError:
        milliseconds = 0.0
    if not 1 <= milliseconds <= 86_400_000:
        raise ConfigError(f"{INTERVAL}={text!r}: accepted are milliseconds from 1 to 86400000")
    return milliseconds / 1000


def resource(service: str) -> Resource:
    """Return who reports: what OTEL_RESOURCE_ATTRIBUTES says, else the service and this host."""
    host = socket.gethostname()
    ours = {"service.name": service, "service.instance.id": host, "host.name": host}
    theirs = OTELResourceDetector().detect().attributes
    # Not the SDK's own id of an instance, which is another one after each start.
    return Resource.create({name: value for name, value in ours.items() if name not in theirs})


class NotTakenError(requests.RequestException):
    """A collector has answered, and yet not taken what it was sent."""


class BoundedSession(requests.Session):
    """Reads no more of an answer than a collector has to say, and believes it only as far.

    The exporter takes a redirection, which it doesn't follow, and a partial success for success.
    """

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        """Send a request and read its answer, as far as MAX_ANSWER; raises `NotTakenError`."""
        response = super().send(request, **{**options, "stream": True})
        body = b""
        deadline = time.monotonic() + CLOSE_SECONDS
        for chunk in response.iter_content(1):  # more would be waited for until it is complete
            body += chunk
            if len(body) >= MAX_ANSWER or time.monotonic() > deadline:
                break
        response.close()
        # The exporter logs the reason, or the text of a refusal, as its version is.
        response.reason = safe_label(str(response.reason))
        if not response.ok:
            body = safe_label(body.decode(errors="replace")).encode()
            response.encoding = "utf-8"
        response._content = body  # what `content` gives; it would read the rest otherwise
        if 300 <= response.status_code < 400:
            raise NotTakenError(f"the collector redirects elsewhere ({response.status_code})")
        if rejected := _rejected(body):
            raise NotTakenError(f"the collector rejected {rejected} data points")
        return response


def _rejected(body: bytes) -> int:
    with suppress(DecodeError):  # JSON, or nothing of the protocol at all
        answer = ExportMetricsServiceResponse.FromString(body)
        return int(answer.partial_success.rejected_data_points)
    return 0


class Pusher:
    """Takes a snapshot each period and exports it; counts how often that worked.

    `take` gives the snapshots, else they are taken of `directory`; `exporter` defaults to OTLP
    over HTTP as OTEL_EXPORTER_OTLP_* say. Raises `ConfigError` for
    a period or a protocol that is not accepted.
    """

    def __init__(
        self,
        service: str,
        directory: str = "",
        *,
        take: Callable[[], Snapshot] | None = None,
        exporter: MetricExporter | None = None,
    ) -> None:
        self._interval = interval()
        _check_protocol()
        _warn_of_shapes()
        self._take = take or Source(Config(service=service, directory=directory)).take
        self._resource = resource(service)
        self._exporter = exporter or OTLPMetricExporter(session=BoundedSession())
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="otlp", daemon=True)

    def start(self) -> None:
        """Begin to push."""
        self._thread.start()

    def close(self, timeout: float = CLOSE_SECONDS) -> bool:
        """Push once more and stop; return whether that was done within `timeout` seconds.

        What still waits for a collector then is left behind: it keeps no process alive.
        """
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        self.push()
        while not self._stop.wait(self._interval):
            self.push()
        self.push()
        self._exporter.shutdown()

    def push(self) -> bool:
        """Export the numbers of now; return whether the collector took them. Raises nothing."""
        error: Exception | None = None
        try:
            data = metrics_data(self._take(), self._resource)
            pushed = self._exporter.export(data) is MetricExportResult.SUCCESS
        except Exception as fault:  # noqa: BLE001  # a thread that ended would push no more
            pushed, error = False, fault
        count_here(OTLP_PUSHES, ("ok" if pushed else "failed",))
        if not pushed:
            log_push_failed(error)
        return pushed


def _check_protocol() -> None:
    for name in PROTOCOLS:
        value = os.environ.get(name)
        if value:
            if value != "http/protobuf":
                raise ConfigError(f"{name}={value!r}: accepted is http/protobuf")
            return


def _warn_of_shapes() -> None:
    # Set for all programs of a host as a rule, and so no reason to push nothing at all.
    for name, only in SHAPES.items():
        value = os.environ.get(name, "").strip().lower()
        if value not in ("", only):
            logger.warning("%s=%s is not heeded: it stays %s", name, safe_label(value), only)
