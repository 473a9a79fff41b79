"""A dashboard from rows: variables, links, annotations, ids and places on the grid."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from grafana_foundation_sdk.builders import dashboard as builder
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard

from .base import DATASOURCE, Sized
from .config import CONFIG
from .promql import INSTANCE, Metric, metrics, select

WIDTH = 24


@dataclass(frozen=True, slots=True)
class Row:
    """A row: its title is the question that its panels answer."""

    question: str
    panels: Sequence[Sized]


@dataclass(frozen=True, kw_only=True, slots=True)
class Board:
    """One dashboard; `operations` adds the variable of GraphQL operations."""

    uid: str
    title: str
    description: str
    rows: Sequence[Row]
    operations: Metric | None = None


def render(board: Board) -> str:
    """Return a dashboard as classic JSON, the same bytes each time."""
    panels = list(_place(board.rows))
    built = _frame(board)
    for variable in _variables(board, json.dumps(panels, cls=JSONEncoder)):
        built.with_variable(variable)
    model = built.build()
    model.panels = panels
    encoded = json.loads(json.dumps(model, cls=JSONEncoder))
    return json.dumps(encoded, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def _frame(board: Board) -> Any:
    links = builder.DashboardLink("WebSocket dashboards").tags([CONFIG.tag])
    links.type(dashboard.DashboardLinkType.DASHBOARDS).as_dropdown(False)
    return (
        builder.Dashboard(board.title)
        .uid(board.uid)
        .description(board.description)
        .tags([CONFIG.tag, "websocket", "asgi"])
        .readonly()
        .timezone("browser")
        .time("now-1h", "now")
        .refresh("30s")
        .version(1)
        .tooltip(dashboard.DashboardCursorSync.CROSSHAIR)
        .links([links.include_vars(True).keep_time(True)])
        .annotations([_restarts()])
    )


def _restarts() -> Any:
    """Return the annotation that marks each start of a worker at its exact time."""
    start = select(metrics.WORKER_START, INSTANCE)
    annotation = builder.AnnotationQuery().name("Worker starts").datasource(DATASOURCE)
    annotation.enable(True).hide(False).icon_color("semi-dark-purple")
    annotation.expr(f"1000 * ({start} > time() - 120)").step("60s").use_value_for_time(True)
    return (
        annotation.title_format("Worker {{worker}} of {{instance}} started")
        .text_format("Its numbers begin anew; totals of the worker before it are kept.")
        .tag_keys("job,instance,worker")
    )


def _variables(board: Board, panels: str) -> list[Any]:
    source = builder.DatasourceVariable("datasource").label("Data source").type("prometheus")
    source.current(dashboard.VariableOption(text="default", value="default", selected=False))
    anything = metrics.EXPORTER_TIME.prometheus
    routes = select(metrics.HANDSHAKES, INSTANCE)
    route = _query("route", "Route", f"label_values({routes}, http_route)")
    if "$route" not in panels:  # kept, as links hand it on to boards that have it
        route.hide(dashboard.VariableHide.HIDE_VARIABLE)
    found = [
        source,
        _query("job", "Job", f"label_values({anything}, job)"),
        _query("instance", "Instance", f'label_values({anything}{{job=~"$job"}}, instance)'),
        route,
    ]
    if board.operations is not None:
        name = board.operations.labels[0]
        expr = f"label_values({select(board.operations, INSTANCE)}, {name})"
        found.append(_query("operation", "Operation", expr))
    return found


def _query(name: str, label: str, expr: str) -> Any:
    variable = builder.QueryVariable(name).label(label).datasource(DATASOURCE)
    variable.query({"query": expr, "refId": "StandardVariableQuery"}).definition(expr)
    variable.multi(True).include_all(True).all_value(".+")
    variable.refresh(dashboard.VariableRefresh.ON_TIME_RANGE_CHANGED)
    variable.sort(dashboard.VariableSort.ALPHABETICAL_ASC)
    return variable.current(dashboard.VariableOption(text=["All"], value=["$__all"], selected=True))


def _place(rows: Sequence[Row]) -> Any:
    """Yield rows and panels with ids from 1 and places from the top, left to right."""
    number, top = 0, 0
    for row in rows:
        number += 1
        place = dashboard.GridPos(h=1, w=WIDTH, x=0, y=top)
        yield builder.Row(row.question).id(number).collapsed(False).grid_pos(place).build()
        top += 1
        left = tallest = 0
        for panel in row.panels:
            if left + panel.width > WIDTH:
                top, left, tallest = top + tallest, 0, 0
            number += 1
            place = dashboard.GridPos(h=panel.height, w=panel.width, x=left, y=top)
            yield panel.builder.id(number).grid_pos(place).build()
            left, tallest = left + panel.width, max(tallest, panel.height)
        top += tallest
