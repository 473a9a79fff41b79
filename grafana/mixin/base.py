"""What all panels share: queries, thresholds, mappings, links and the grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from grafana_foundation_sdk.builders import dashboard as dashboard_builder
from grafana_foundation_sdk.builders import prometheus
from grafana_foundation_sdk.models import common, dashboard
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from .config import CONFIG

DATASOURCE = common.DataSourceRef(type_val="prometheus", uid="${datasource}")
GREEN, YELLOW, ORANGE, RED = "green", "yellow", "orange", "red"
BLUE, PURPLE = "blue", "purple"
GOOD_AT_ZERO = ((None, GREEN), (1, RED))
WARN_ABOVE_ZERO = ((None, GREEN), (1, ORANGE))
NEUTRAL = ((None, BLUE),)

Steps = Sequence[tuple[float | None, str]]
Builder = Any  # each kind of panel has its own builder class; they share methods, not a base


@dataclass(frozen=True, slots=True)
class Query:
    """One query of a panel, and how its series are named."""

    expr: str
    legend: str = ""
    exemplar: bool = False


@dataclass(frozen=True, slots=True)
class Sized:
    """A panel and its size on the grid of 24 columns."""

    builder: Builder
    width: int
    height: int


def _target(query: Query, ref: str, *, instant: bool, format_val: PromQueryFormat) -> Any:
    target = prometheus.Dataquery().expr(query.expr).ref_id(ref).datasource(DATASOURCE)
    target.format(format_val).exemplar(query.exemplar)
    target.legend_format(query.legend or "__auto")
    return target.instant() if instant else target.range()


def common_parts(
    builder: Builder,
    title: str,
    description: str,
    queries: Sequence[Query],
    *,
    unit: str,
    instant: bool = False,
    format_val: PromQueryFormat = PromQueryFormat.TIME_SERIES,
    alert: str = "",
) -> Builder:
    """Give a panel what every panel has; `alert` is whose runbook entry it links to."""
    builder.title(title).description(description).unit(unit).datasource(DATASOURCE)
    builder.no_value("no data")
    for index, query in enumerate(queries):
        ref = chr(ord("A") + index)
        builder.with_target(_target(query, ref, instant=instant, format_val=format_val))
    if alert:
        link = dashboard_builder.DashboardLink(f"Runbook: {CONFIG.prefix}{alert}")
        link.type(dashboard.DashboardLinkType.LINK).target_blank(True)
        builder.links([link.url(CONFIG.runbook(CONFIG.prefix + alert))])
    return builder


def thresholds(steps: Steps) -> Any:
    """Return thresholds; the first step has no value and holds below the second."""
    return (
        dashboard_builder.ThresholdsConfig()
        .mode(dashboard.ThresholdsMode.ABSOLUTE)
        .steps([dashboard.Threshold(value=value, color=color) for value, color in steps])
    )


def colour(mode: dashboard.FieldColorModeId) -> Any:
    """Return how a panel's series get their colours."""
    return dashboard_builder.FieldColor().mode(mode)


def value_mappings(texts: dict[str, tuple[str, str]]) -> list[Any]:
    """Return mappings of values to texts with colours."""
    options = {
        value: dashboard.ValueMappingResult(text=text, color=colour, index=index)
        for index, (value, (text, colour)) in enumerate(texts.items())
    }
    return [dashboard.ValueMap(options=options)]
