"""Metrics of GraphQL operations, until the catalogue has them; names and labels are settled."""

from __future__ import annotations

from ws_lifecycle_metrics.catalog import Kind, Metric

_NAME, _BOTH = ("graphql_operation_name",), ("graphql_operation_name", "graphql_operation_type")


def _metric(name: str, kind: Kind, labels: tuple[str, ...], unit: str = "") -> Metric:
    return Metric(name=f"graphql.server.{name}", kind=kind, labels=labels, unit=unit, help="")


GRAPHQL_REQUESTS = _metric("requests", Kind.COUNTER, _BOTH)
GRAPHQL_ACTIVE = _metric("request.active", Kind.GAUGE, _BOTH)
GRAPHQL_DURATION = _metric("request.duration", Kind.HISTOGRAM, _BOTH, "s")
SUBSCRIPTION_EVENTS = _metric("subscription.event_count", Kind.COUNTER, _NAME)
SUBSCRIPTION_ERRORS = _metric("subscription.event_errors", Kind.COUNTER, _NAME)
SUBSCRIPTION_FIRST_EVENT = _metric("subscription.first_event", Kind.HISTOGRAM, _NAME, "s")
SUBSCRIPTION_ENDS = _metric("subscription.ends", Kind.COUNTER, (*_NAME, "reason"))
SUBSCRIPTION_ORPHANS = _metric("subscription.orphans", Kind.GAUGE, ())
