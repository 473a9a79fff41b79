"""Queries from the catalogue: no other file of the mixin spells a metric's name."""

from __future__ import annotations

from typing import Any

from ws_lifecycle_metrics import catalog as metrics
from ws_lifecycle_metrics.catalog import Kind, Metric

from .config import CONFIG

__all__ = [
    "INSTANCE",
    "ROUTE",
    "Metric",
    "grown",
    "increase",
    "metrics",
    "quantile",
    "rate",
    "select",
    "sum_by",
]

INSTANCE = 'job=~"$job", instance=~"$instance"'
ROUTE = INSTANCE + ', http_route=~"$route"'
_RANGE = "$__rate_interval"


def select(metric: Metric, matchers: str = "", *, suffix: str = "") -> str:
    """Return a selector; `suffix` is a histogram's `_bucket`, `_sum` or `_count`."""
    if (metric.kind is Kind.HISTOGRAM) is not bool(suffix):
        raise ValueError(f"{metric.name} is a {metric.kind}: suffix {suffix!r} does not fit")
    return f"{metric.prometheus}{suffix}" + (f"{{{matchers}}}" if matchers else "")


def rate(metric: Metric, matchers: str = "", window: str = _RANGE, *, suffix: str = "") -> str:
    """Return the rate of a counter, or of a part of a histogram; `window` may have an offset."""
    return _over("rate", metric, matchers, window, suffix)


def increase(metric: Metric, matchers: str = "", window: str = _RANGE, *, suffix: str = "") -> str:
    """Return the increase of a counter, or of a part of a histogram."""
    return _over("increase", metric, matchers, window, suffix)


def grown(metric: Metric, matchers: str = "", window: str = _RANGE, *, target: str = "") -> str:
    """Return the increase of a counter whose series may appear with their first event.

    increase() sees nothing of what a series is born with. A series with fewer samples in the
    window than its target (`target` are matchers) was born in it, and so all of its value is new;
    one that is as old as what is known of the target says nothing about when it counted.
    """
    series = select(metric, matchers) + f"[{window}]"
    clock = select(metrics.EXPORTER_TIME, target) + f"[{window}]"
    on = f"on ({CONFIG.instance()}) group_left ()"
    younger = f"count_over_time({series}) < {on} count_over_time({clock})"
    # `and` binds tighter than `or`, and a comparison tighter than both.
    return f"last_over_time({series}) and {younger} or {increase(metric, matchers, window)}"


def _over(function: str, metric: Metric, matchers: str, window: str, suffix: str) -> str:
    if metric.kind is Kind.GAUGE:
        raise ValueError(f"{metric.name} is a gauge: {function}() does not fit")
    duration, _, offset = window.partition(" ")
    past = f" {offset}" if offset else ""
    return f"{function}({select(metric, matchers, suffix=suffix)}[{duration}]{past})"


def sum_by(labels: str, expr: str) -> str:
    """Return a sum that keeps `labels`; empty: one number."""
    return f"sum by ({labels}) ({expr})" if labels else f"sum({expr})"


def quantile(q: float, metric: Metric, matchers: str, labels: str = "") -> str:
    """Return a quantile of a histogram, for each of `labels`."""
    buckets = rate(metric, matchers, suffix="_bucket")
    by = f"{labels}, le" if labels else "le"
    return f"histogram_quantile({q}, {sum_by(by, buckets)})"


def number(value: Any) -> str:
    """Return a number as PromQL and people write it: 5, not 5.0."""
    return f"{value:g}"
