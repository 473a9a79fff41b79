"""The kinds of panel that draw: number, lines, heatmap and timeline of states."""

from __future__ import annotations

from typing import Any

from grafana_foundation_sdk.builders import common as common_builder
from grafana_foundation_sdk.builders import heatmap, statetimeline, timeseries
from grafana_foundation_sdk.builders import stat as stat_builder
from grafana_foundation_sdk.models import common, dashboard
from grafana_foundation_sdk.models import heatmap as heatmap_model
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from .base import (
    GOOD_AT_ZERO,
    GREEN,
    NEUTRAL,
    RED,
    Query,
    Sized,
    Steps,
    colour,
    common_parts,
    thresholds,
    value_mappings,
)


def stat(
    title: str,
    description: str,
    *queries: Query,
    unit: str = "short",
    steps: Steps = GOOD_AT_ZERO,
    size: tuple[int, int] = (4, 4),
    alert: str = "",
    mappings: dict[str, tuple[str, str]] | None = None,
    decimals: int | None = None,
    sparkline: bool = False,
) -> Sized:
    """Return one large number, coloured by `steps`; `mappings` are value to (text, colour)."""
    builder = common_parts(
        stat_builder.Panel(),
        title,
        description,
        queries,
        unit=unit,
        alert=alert,
        instant=not sparkline,
    )
    builder.thresholds(thresholds(steps)).color_scheme(
        colour(dashboard.FieldColorModeId.THRESHOLDS)
    )
    builder.color_mode(
        common.BigValueColorMode.NONE
        if steps is NEUTRAL
        else common.BigValueColorMode.BACKGROUND_SOLID
    )
    builder.graph_mode(
        common.BigValueGraphMode.AREA if sparkline else common.BigValueGraphMode.NONE
    )
    builder.text_mode(common.BigValueTextMode.AUTO).justify_mode(common.BigValueJustifyMode.AUTO)
    builder.reduce_options(common_builder.ReduceDataOptions().calcs(["lastNotNull"]).values(False))
    if mappings:
        builder.mappings(value_mappings(mappings))
    if decimals is not None:
        builder.decimals(decimals)
    return Sized(builder, *size)


def lines(
    title: str,
    description: str,
    *queries: Query,
    unit: str = "short",
    size: tuple[int, int] = (12, 8),
    alert: str = "",
    stacked: bool = False,
    limit: float | None = None,
    table_legend: bool = False,
    colours: dict[str, str] | None = None,
) -> Sized:
    """Return a time series; `limit` draws a line, `colours` are a series' name to its colour."""
    builder = common_parts(timeseries.Panel(), title, description, queries, unit=unit, alert=alert)
    builder.color_scheme(colour(dashboard.FieldColorModeId.PALETTE_CLASSIC)).min(0)
    builder.line_width(1).fill_opacity(25 if stacked else 8).span_nulls(False)
    builder.show_points(common.VisibilityMode.NEVER)
    if stacked:
        builder.stacking(common_builder.StackingConfig().mode(common.StackingMode.NORMAL))
    if limit is not None:
        builder.thresholds(thresholds(((None, "transparent"), (limit, RED))))
        style = common_builder.GraphThresholdsStyleConfig()
        builder.thresholds_style(style.mode(common.GraphThresholdsStyleMode.DASHED))
    for name, fixed in (colours or {}).items():
        value = {"mode": "fixed", "fixedColor": fixed}
        builder.override_by_name(name, [dashboard.DynamicConfigValue(id_val="color", value=value)])
    builder.legend(_legend(table_legend)).tooltip(
        common_builder.VizTooltipOptions()
        .mode(common.TooltipDisplayMode.MULTI)
        .sort(common.SortOrder.DESCENDING)
    )
    return Sized(builder, *size)


def _legend(table: bool) -> Any:
    legend = common_builder.VizLegendOptions().show_legend(True)
    legend.placement(common.LegendPlacement.BOTTOM)
    if table:
        return legend.display_mode(common.LegendDisplayMode.TABLE).calcs(["lastNotNull", "max"])
    return legend.display_mode(common.LegendDisplayMode.LIST).calcs([])


def heat(
    title: str,
    description: str,
    query: Query,
    *,
    unit: str = "s",
    size: tuple[int, int] = (12, 8),
    alert: str = "",
) -> Sized:
    """Return a heatmap of a histogram's buckets; the query keeps `le` alone."""
    builder = common_parts(
        heatmap.Panel(),
        title,
        description,
        (query,),
        unit="short",
        alert=alert,
        format_val=PromQueryFormat.HEATMAP,
    )
    builder.calculate(False).cell_gap(1).exemplars_color("rgba(255,0,255,0.7)")
    builder.color(
        heatmap.HeatmapColorOptions()
        .mode(heatmap_model.HeatmapColorMode.SCHEME)
        .scale(heatmap_model.HeatmapColorScale.EXPONENTIAL)
        .exponent(0.5)
        .scheme("Oranges")
        .steps(64)
        .reverse(False)
        .fill("dark-orange")
    )
    builder.filter_values(heatmap.FilterValueRange().le(1e-9))
    builder.y_axis(heatmap.YAxisConfig().unit(unit).axis_placement(common.AxisPlacement.LEFT))
    builder.show_legend().tooltip(
        heatmap.HeatmapTooltip().mode(common.TooltipDisplayMode.SINGLE).y_histogram(False)
    )
    return Sized(builder, *size)


def states(
    title: str,
    description: str,
    *queries: Query,
    mappings: dict[str, tuple[str, str]],
    size: tuple[int, int] = (12, 8),
    alert: str = "",
) -> Sized:
    """Return a timeline of states, one bar a series; `mappings` give values text and colour."""
    builder = common_parts(
        statetimeline.Panel(), title, description, queries, unit="short", alert=alert
    )
    builder.mappings(value_mappings(mappings)).merge_values(True).row_height(0.8).fill_opacity(80)
    builder.line_width(0).show_value(common.VisibilityMode.NEVER)
    builder.thresholds(thresholds(((None, GREEN),)))
    builder.color_scheme(colour(dashboard.FieldColorModeId.THRESHOLDS)).legend(_legend(False))
    builder.tooltip(common_builder.VizTooltipOptions().mode(common.TooltipDisplayMode.SINGLE))
    return Sized(builder, *size)
