"""The kinds of panel that list: a table of an instant query, and text."""

from __future__ import annotations

from typing import Any

from grafana_foundation_sdk.builders import common as common_builder
from grafana_foundation_sdk.builders import table as table_builder
from grafana_foundation_sdk.builders import text as text_builder
from grafana_foundation_sdk.models import dashboard
from grafana_foundation_sdk.models.prometheus import PromQueryFormat
from grafana_foundation_sdk.models.text import TextMode

from .base import GREEN, Query, Sized, Steps, colour, common_parts, thresholds


def table(
    title: str,
    description: str,
    query: Query,
    *,
    columns: dict[str, str],
    unit: str = "short",
    steps: Steps = ((None, GREEN),),
    size: tuple[int, int] = (12, 8),
    alert: str = "",
    narrow: tuple[str, ...] = (),
    links: dict[str, tuple[str, str]] | None = None,
) -> Sized:
    """Return a table of labels and value, largest first.

    `columns` are label (or Value) to heading, in order; those of `narrow` leave room to the
    others; `links` are heading to (title, url).
    """
    builder = common_parts(
        table_builder.Panel(),
        title,
        description,
        (query,),
        unit=unit,
        alert=alert,
        instant=True,
        format_val=PromQueryFormat.TABLE,
    )
    builder.thresholds(thresholds(steps)).show_header(True)
    builder.color_scheme(colour(dashboard.FieldColorModeId.THRESHOLDS))
    builder.with_transformation(_organise(columns))
    value = columns["Value"]
    builder.sort_by([common_builder.TableSortByFieldState().display_name(value).desc(True)])
    cell = dashboard.DynamicConfigValue(
        id_val="custom.cellOptions", value={"type": "color-background", "mode": "basic"}
    )
    width = dashboard.DynamicConfigValue(id_val="custom.width", value=90)
    builder.override_by_name(value, [cell, width])
    for heading in narrow:
        builder.override_by_name(heading, [width])
    for heading, (text, url) in (links or {}).items():
        link = [{"title": text, "url": url, "targetBlank": False}]
        builder.override_by_name(
            heading, [dashboard.DynamicConfigValue(id_val="links", value=link)]
        )
    return Sized(builder, *size)


def _organise(columns: dict[str, str]) -> Any:
    """Return the transformation that keeps, orders and names the columns."""
    return dashboard.DataTransformerConfig(
        id_val="organize",
        options={
            "excludeByName": {"Time": True},
            "indexByName": {label: index for index, label in enumerate(columns)},
            "renameByName": dict(columns),
        },
    )


def text(title: str, description: str, markdown: str, *, size: tuple[int, int]) -> Sized:
    """Return a panel of Markdown."""
    builder = text_builder.Panel().title(title).description(description)
    builder.mode(TextMode.MARKDOWN).content(markdown)
    return Sized(builder, *size)
