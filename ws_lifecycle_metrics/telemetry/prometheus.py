"""Prometheus: a collector for any registry, and the exposition as bytes and as an ASGI app."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator
from functools import partial
from itertools import accumulate
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar

from .. import catalog
from ..catalog import METRICS, Kind
from ..config import Config
from ..store import exemplars as store
from ..store.snapshot import Family, Histogram, Snapshot, Source
from ..watchdog.heartbeat import is_asyncio, running_loop
from .logs import log_fault

Take = Callable[[], Snapshot]

TEXT = ""
OPENMETRICS = "application/openmetrics-text; version=1.0.0"
_FORMATS = {"application/openmetrics-text": OPENMETRICS, "text/plain": TEXT}
_WEIGHT = re.compile(r";\s*q=([01](?:\.[0-9]{0,3})?)\s*(?:;|$)")


class LifecycleCollector(Collector):
    """Collects all metrics of a service, from all its workers on this host.

    `config` says which service; without it, the one of this process's middleware.
    Usable in any registry: `REGISTRY.register(LifecycleCollector())`. A failure never fails
    the scrape: it gives `ws_lifecycle_metrics_collector_success` 0 and a log record.
    """

    def __init__(self, config: Config | None = None, *, take: Take | None = None) -> None:
        self._take = Source(config).take if take is None else take

    def describe(self) -> Iterable[Metric]:
        """Name the metrics, so that a registry need not collect to know them."""
        return [_family(Family(metric, {})) for metric in METRICS.values()]

    def collect(self) -> Iterator[Metric]:
        """Yield every metric, or only that collecting failed."""
        try:
            families = [_family(family) for family in self._take().families()]
        except Exception as error:  # noqa: BLE001  # a failing collector must not fail the scrape
            log_fault(error)
            families = [_family(Family(catalog.COLLECTOR_SUCCESS, {(): 0}))]
        yield from families


def _family(family: Family) -> Metric:
    metric = family.metric
    if metric.kind is Kind.HISTOGRAM:
        histogram = HistogramMetricFamily(metric.prometheus, metric.help, labels=metric.labels)
        bounds = [*(_number(bound) for bound in metric.buckets), "+Inf"]
        for labels, value in family.series.items():
            assert isinstance(value, Histogram)
            histogram.add_metric(labels, _buckets(bounds, value), value.sum)
        return histogram
    made = CounterMetricFamily if metric.kind is Kind.COUNTER else GaugeMetricFamily
    simple = made(metric.prometheus, metric.help, labels=metric.labels)
    for labels, value in family.series.items():
        assert not isinstance(value, Histogram)
        simple.add_metric(labels, value)
    return simple


def _buckets(bounds: list[str], value: Histogram) -> list[Any]:
    """Return pairs of bound and cumulative count, or triples where there is an exemplar."""
    counts = map(float, accumulate(value.counts))
    if not value.exemplars:
        return list(zip(bounds, counts, strict=True))
    return [
        (bound, count) if one is None else (bound, count, _exemplar(one))
        for bound, count, one in zip(bounds, counts, value.exemplars, strict=True)
    ]


def _exemplar(one: store.Exemplar) -> Exemplar:
    labels = {"trace_id": f"{one.trace_id:032x}", "span_id": f"{one.span_id:016x}"}
    return Exemplar(labels, one.value, one.timestamp)


def _number(bound: float) -> str:
    """Write a bucket's bound as prometheus_client writes its own: 0.005, 1.0, 10.0."""
    return str(float(bound))


def negotiate(accept: str) -> str:
    """Return the format that an Accept header wants: `OPENMETRICS` or `TEXT`.

    The one of more weight (RFC 9110, section 12.4.2), at 0 not; of equal ones OpenMetrics. One of
    two, whatever stands in the header: it is the client's, and may be anything.
    """
    best = {TEXT: 0.0, OPENMETRICS: 0.0}
    for part in accept.lower().split(","):
        wanted = _FORMATS.get(part.partition(";")[0].strip())
        if wanted is not None:
            weight = _WEIGHT.search(part)
            best[wanted] = max(best[wanted], float(weight[1]) if weight else 1.0)
    return OPENMETRICS if best[OPENMETRICS] and best[OPENMETRICS] >= best[TEXT] else TEXT


def render(take: Take, accept: str = "") -> tuple[bytes, str]:
    """Return what `take` reads as text, and its content type, as the Accept header wants it."""
    encoder, content_type = choose_encoder(negotiate(accept))
    registry = CollectorRegistry()
    registry.register(LifecycleCollector(take=take))
    return encoder(registry), content_type


def metrics_app(config: Config | None = None) -> Callable[[Any, Any, Any], Awaitable[None]]:
    """Return an ASGI application that answers GET and HEAD, at any path, with the metrics.

    `config` says of which service; without it, of the one of this process's middleware.
    For convenience: it is gone together with its worker. The sidecar,
    `ws-lifecycle-metrics serve`, answers also when a worker hangs.
    """
    take = Source(config).take
    # Those who ask during a collection share its result: many scrapes must not take all threads.
    running: dict[tuple[asyncio.AbstractEventLoop, str], asyncio.Task[tuple[bytes, str]]] = {}
    one_at_a_time: list[Any] = []  # trio's limiter, which is made within a run

    async def exposition(accept: str) -> tuple[bytes, str]:
        loop: Any = running_loop()
        if not is_asyncio(loop):
            trio = sys.modules["trio"]
            if not one_at_a_time:
                one_at_a_time.append(trio.CapacityLimiter(1))
            work = partial(trio.to_thread.run_sync, limiter=one_at_a_time[0])
            found: tuple[bytes, str] = await work(render, take, accept)
            return found
        key = loop, negotiate(accept)
        if key not in running:
            # In a thread: reading and rendering must not delay the connections that they show.
            running[key] = loop.create_task(asyncio.to_thread(render, take, accept))
            running[key].add_done_callback(lambda _: running.pop(key))
        return await asyncio.shield(running[key])

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            raise ValueError(f"metrics_app serves http, not {scope['type']!r}")
        if scope["method"] not in ("GET", "HEAD"):
            refusal = [(b"allow", b"GET, HEAD"), (b"content-length", b"0")]
            await send({"type": "http.response.start", "status": 405, "headers": refusal})
            await send({"type": "http.response.body", "body": b""})
            return
        found = b",".join(v for k, v in scope["headers"] if bytes(k).lower() == b"accept")
        body, content_type = await exposition(found.decode("latin-1"))
        headers = [
            (b"content-type", content_type.encode()),
            (b"content-length", str(len(body)).encode()),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        answer = b"" if scope["method"] == "HEAD" else body
        await send({"type": "http.response.body", "body": answer})

    return app
