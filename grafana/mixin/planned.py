"""Metrics of GraphQL operations: the catalogue's, or what it will have; names are settled.

To be removed when the catalogue has them all.
"""

from __future__ import annotations

from ws_lifecycle_metrics.catalog import METRICS, Kind, Metric

_NAME, _BOTH = ("graphql_operation_name",), ("graphql_operation_name", "graphql_operation_type")
_TYPES = (("query",), ("mutation",), ("subscription",))
_ENDS = (
    *(("completed",), ("rejected",), ("client_complete",), ("disconnected",)),
    *(("cancelled",), ("consumer_gone",), ("error",)),
)


def _metric(
    name: str,
    kind: Kind,
    labels: tuple[str, ...],
    series: tuple[tuple[str, ...], ...] = ((),),
    buckets: tuple[float, ...] = (),
) -> Metric:
    known = METRICS.get(f"graphql.server.{name}")
    if known is not None:
        return known
    return Metric(
        name=f"graphql.server.{name}",
        kind=kind,
        labels=labels,
        series=series,
        buckets=buckets,
        unit="s" if buckets else "",
        help="",
    )


GRAPHQL_REQUESTS = _metric("requests", Kind.COUNTER, _BOTH, _TYPES)
GRAPHQL_ACTIVE = _metric("request.active", Kind.GAUGE, _BOTH, _TYPES)
GRAPHQL_DURATION = _metric(
    "request.duration",
    Kind.HISTOGRAM,
    _BOTH,
    _TYPES,
    (0.005, 0.025, 0.1, 0.5, 1, 5, 10, 60, 600, 3600, 86400),
)
SUBSCRIPTION_EVENTS = _metric("subscription.event_count", Kind.COUNTER, _NAME)
SUBSCRIPTION_ERRORS = _metric("subscription.event_errors", Kind.COUNTER, _NAME)
SUBSCRIPTION_FIRST_EVENT = _metric(
    "subscription.first_event",
    Kind.HISTOGRAM,
    _NAME,
    buckets=(0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
SUBSCRIPTION_ENDS = _metric("subscription.ends", Kind.COUNTER, (*_NAME, "reason"), _ENDS)
SUBSCRIPTION_ORPHANS = _metric("subscription.orphans", Kind.GAUGE, ())
