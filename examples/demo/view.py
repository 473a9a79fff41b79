"""What the demo shows: the sidecar's /metrics, parsed as any client of Prometheus' format would."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample
from rich.console import Group
from rich.table import Table
from rich.text import Text

from ws_lifecycle_metrics.catalog import (
    ACTIVE_CONNECTIONS,
    EXPORTER_TIME,
    HANDSHAKES,
    OLDEST_STATE,
    PROTOCOL_VIOLATIONS,
    RECEIVED_MESSAGES,
    SENT_MESSAGES,
    WORKERS_REPORTING,
)
from ws_lifecycle_metrics.labels import OTHER
from ws_lifecycle_metrics.protocol import RULES

WIDE = 110
"""Columns from which there is room for what a rule means."""

_COUNTS = {
    HANDSHAKES.prometheus: "handshakes",
    RECEIVED_MESSAGES.prometheus: "in",
    SENT_MESSAGES.prometheus: "out",
    PROTOCOL_VIOLATIONS.prometheus: "violations",
}
_COLUMNS = ("open", "closing", "handshakes", "in", "out", "violations")
_STYLES = {"open": "green", "closing": "bold red", "violations": "yellow"}
_SEVERITIES = {"error": "red", "warning": "yellow", "info": "dim"}


@dataclass
class Numbers:
    """One scrape: by route and column, by route and rule, and of the host."""

    routes: dict[str, Counter[str]] = field(default_factory=dict)
    violations: Counter[tuple[str, str]] = field(default_factory=Counter)
    workers: int = 0
    now: float = 0.0
    closing_since: float = 0.0

    def sum(self, column: str) -> int:
        """Return the sum of a column over all routes."""
        return sum(counts[column] for counts in self.routes.values())


def parse(text: str) -> Numbers:
    """Read a scrape."""
    numbers = Numbers()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            _add(numbers, sample)
    return numbers


def _add(numbers: Numbers, sample: Sample) -> None:
    labels, value = sample.labels, int(sample.value)
    route = labels.get("http_route", "")
    if sample.name in _COUNTS:
        numbers.routes.setdefault(route, Counter())[_COUNTS[sample.name]] += value
    match sample.name:
        case ACTIVE_CONNECTIONS.prometheus:
            numbers.routes.setdefault(route, Counter())[labels["state"]] += value
        case PROTOCOL_VIOLATIONS.prometheus:
            numbers.violations[labels["rule"], route] += value
        case OLDEST_STATE.prometheus if labels["state"] == "closing":
            numbers.closing_since = sample.value
        case EXPORTER_TIME.prometheus:
            numbers.now = sample.value
        case WORKERS_REPORTING.prometheus:
            numbers.workers = value


def summary(numbers: Numbers) -> str:
    """Return the state of the service in a few words."""
    closing = f"{numbers.sum('closing')} closing"
    if numbers.closing_since:
        closing += f" (the first for {numbers.now - numbers.closing_since:.0f} s)"
    return ", ".join(
        (
            _plural(numbers.workers, "worker"),
            f"{numbers.sum('open')} open",
            closing,
            _plural(numbers.sum("violations"), "violation"),
        )
    )


def line(numbers: Numbers) -> str:
    """Return a scrape in one line, for a log."""
    totals = (f"{numbers.sum(column):,} {column}" for column in ("handshakes", "in", "out"))
    rules = sorted({rule for (rule, _), times in numbers.violations.items() if times})
    return ", ".join((summary(numbers), *totals)) + (f": {', '.join(rules)}" if rules else "")


def _plural(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def tables(numbers: Numbers, width: int) -> Group:
    """Return the routes and the broken rules as tables for a width in columns."""
    heading = Text(summary(numbers), style="bold")
    shown = [heading, Text(), _routes(numbers)]
    if any(numbers.violations.values()):
        shown += [Text(), _violations(numbers, width)]
    return Group(*shown)


def _routes(numbers: Numbers) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("route", no_wrap=True)
    for column in _COLUMNS:
        table.add_column(column, justify="right", no_wrap=True, min_width=6)
    for route, counts in sorted(numbers.routes.items()):
        if route == OTHER and not any(counts.values()):
            continue  # there is nothing that has no route of its own
        cells = (
            Text(f"{counts[c]:,}", _STYLES.get(c, "") if counts[c] else "dim") for c in _COLUMNS
        )
        table.add_row(Text(route), *cells)
    return table


def _violations(numbers: Numbers, width: int) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("rule broken", no_wrap=True)
    table.add_column("severity", no_wrap=True)
    table.add_column("route", no_wrap=True)
    table.add_column("times", justify="right", no_wrap=True)
    if width >= WIDE:
        table.add_column("meaning")
    for (rule_id, route), times in sorted(numbers.violations.items(), key=lambda item: -item[1]):
        rule = RULES.get(rule_id)
        if not times or rule is None:
            continue
        severity = Text(rule.severity, _SEVERITIES[rule.severity])
        cells = [Text(rule_id), severity, Text(route), Text(f"{times:,}")]
        table.add_row(*cells, *([Text(rule.meaning)] if width >= WIDE else []))
    return table
