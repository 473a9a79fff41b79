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
    "age",
    "firing",
    "grown",
    "increase",
    "metrics",
    "of_target",
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

    increase() sees nothing of what a series is born with. A series that is there now, was not when
    the window began, and has fewer samples in it than its target (`target` are matchers) was born
    in it, and so all of its value is new. One that is as old as what is known of the target says
    nothing about when it counted, and one that has ended no longer counts.
    """
    series = select(metric, matchers)
    clock = f"count_over_time({select(metrics.EXPORTER_TIME, target)}[{window}])"
    younger = f"count_over_time({series}[{window}]) < {of_target(clock)}"
    # The target's other labels may have changed meanwhile, and its old totals not be new by that.
    before = f"on ({CONFIG.instance(*metric.labels)}) {series} offset {window}"
    # `and` and `unless` bind tighter than `or`, and a comparison tighter than all three.
    return f"{series} and {younger} unless {before} or {increase(metric, matchers, window)}"


def of_target(expr: str) -> str:
    """Return the right side of an operation with one value a target, for each of its series.

    A target whose other labels change has two series of that value for a while.
    """
    target = CONFIG.instance()
    return f"on ({target}) group_left () max by ({target}) ({expr})"


def age(since: str, matchers: str = "") -> str:
    """Return the seconds that have gone by since a timestamp, on the exporter's clock alone."""
    return f"-({since} - {of_target(select(metrics.EXPORTER_TIME, matchers))})"


def firing(alert: str, labels: str) -> str:
    """Return 1 for each of `labels` for which an alert fires: so it may stay while its fault does.

    An alert that compares with what was some time ago loses that as time goes by.
    """
    name = CONFIG.prefix + alert
    return f'max by ({labels}) (ALERTS{{alertname="{name}", alertstate="firing"}})'


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
