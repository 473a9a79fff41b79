"""Dashboards: current, by the rules of Grafana's linter, and in the catalogue's words."""

from __future__ import annotations

import json
import re

import promql_parser
import pytest

from grafana.mixin.__main__ import stale, write
from grafana.mixin.config import CONFIG, ROOT
from grafana.mixin.promql import grown
from tests.rules.mixin import (
    DASHBOARDS,
    PROMETHEUS_OWN,
    Expression,
    alerts,
    dashboard,
    expressions,
    filled,
    known_metrics,
    panels,
    queries,
    recorded,
)
from ws_lifecycle_metrics.catalog import CLOSES, METRICS, Kind

LEFT_OUT: dict[str, str] = {}
"""Metrics on no panel, and why. The issue asks for a panel or a reason; so far none needs one."""

# Totals are taken as they are in one place: the books, where a rate could not be exact.
BOOKS = ("Connections unaccounted for", "Accepted, ended and active")
NUMBERS = ("rate", "increase")
ids = {"ids": lambda path: path.stem}


def test_committed_files_are_current():
    assert stale(ROOT) == [], "run: make grafana"


def test_a_changed_file_is_noticed(tmp_path):
    write(tmp_path)
    assert stale(tmp_path) == []
    (tmp_path / "grafana/alerts/alerts.yml").write_text("groups: []\n")
    (tmp_path / "grafana/dashboards/old.json").write_text("{}")
    assert stale(tmp_path) == ["grafana/alerts/alerts.yml", "grafana/dashboards/old.json"]


def test_windows_line_ends_are_current_too(tmp_path):
    write(tmp_path)
    for path in tmp_path.rglob("*.*"):
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert stale(tmp_path) == []


def findings(board: dict) -> list[str]:
    """What Grafana's linter, and ours, say against a dashboard."""
    found = [f"panel {p['id']}: {why}" for p in board["panels"] for why in _against(p)]
    variables = {v["name"]: v for v in board["templating"]["list"]}
    if variables.get("datasource", {}).get("type") != "datasource":
        found.append("the data source is not a variable")
    for name in ("job", "instance", "route"):
        variable = variables.get(name, {})
        if not (variable.get("multi") and variable.get("allValue") == ".+"):
            found.append(f"{name} is not a multi-select with allValue .+")
        if variable.get("datasource", {}).get("uid") != "${datasource}":
            found.append(f"{name} is not asked from the chosen data source")
    if board["editable"]:
        found.append("editable")
    if len({p["id"] for p in board["panels"]}) != len(board["panels"]):
        found.append("ids are not unique")
    return found


def _against(panel: dict) -> list[str]:
    if panel["type"] == "row":
        return [] if panel["title"].endswith("?") else ["a row that asks nothing"]
    found = [f"no {key}" for key in ("title", "description") if not panel.get(key)]
    if panel["type"] == "text":
        return found
    if not panel["fieldConfig"]["defaults"].get("unit"):
        found.append("no unit")
    if panel["fieldConfig"]["defaults"].get("noValue") != "no data":
        found.append("does not say 'no data'")
    if panel["datasource"] != {"type": "prometheus", "uid": "${datasource}"}:
        found.append("a fixed data source")
    return found + [why for target in panel["targets"] for why in _against_query(target)]


def _against_query(target: dict) -> list[str]:
    expr, found = target["expr"], []
    if 'job=~"$job"' not in expr:
        found.append("does not match the job")
    if 'instance=~"$instance"' not in expr and "ALERTS" not in expr:
        found.append("does not match the instance")
    windows = set(re.findall(r"\[([^\]]+)\]", expr))
    if not windows <= {"$__rate_interval", "$__range", "1h"}:
        found.append(f"a fixed window: {windows}")
    if target["datasource"]["uid"] != "${datasource}":
        found.append("a fixed data source")
    return found


@pytest.mark.parametrize("path", DASHBOARDS, **ids)
def test_linter_finds_nothing(path):
    assert findings(dashboard(path)) == []


def test_linter_finds_what_is_broken():
    board = dashboard(DASHBOARDS[0])
    board["editable"] = True
    board["templating"]["list"] = board["templating"]["list"][1:]
    panel = next(p for p in board["panels"] if p["type"] == "timeseries")
    panel["description"] = ""
    panel["targets"][0]["expr"] = "rate(x_total[5m])"
    assert len(findings(board)) == 6


@pytest.mark.parametrize("path", DASHBOARDS, **ids)
def test_panels_stand_side_by_side(path):
    taken: set[tuple[int, int]] = set()
    for panel in dashboard(path)["panels"]:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not taken & cells, panel["title"]
        assert max(x for x, _ in cells) < 24, panel["title"]
        taken |= cells


def test_links_of_panels_lead_to_entries_of_the_runbook():
    anchors = {
        heading.lower()
        for heading in re.findall(r"^## (\w+)", (ROOT / "grafana/runbook.md").read_text(), re.M)
    }
    links = [link for path in DASHBOARDS for p in panels(path) for link in p.get("links") or ()]
    assert len(links) > 20
    for link in links:
        base, _, anchor = link["url"].partition("#")
        assert base == CONFIG.runbook_base
        assert anchor in anchors


def test_dashboards_link_to_each_other_and_have_their_own_name():
    assert len({dashboard(path)["uid"] for path in DASHBOARDS}) == 4
    for path in DASHBOARDS:
        (link,) = dashboard(path)["links"]
        assert link["tags"] == [CONFIG.tag]
        assert link["includeVars"]
        assert CONFIG.tag in dashboard(path)["tags"]
        assert path.stem == dashboard(path)["uid"]


@pytest.mark.parametrize("path", DASHBOARDS, **ids)
def test_exemplars_are_on_where_there_are_histograms(path):
    for panel in panels(path):
        targets = panel.get("targets", ())
        if any("_duration_seconds_bucket" in target["expr"] for target in targets):
            assert any(target["exemplar"] for target in targets), panel["title"]


@pytest.mark.parametrize("path", DASHBOARDS, **ids)
def test_who_chooses_in_a_list_sees_something_else(path):
    drawn = json.dumps(panels(path))
    variables = dashboard(path)["templating"]["list"]
    shown = {one["name"] for one in variables if not one.get("hide")}
    assert {name for name in shown if not re.search(rf"\$\{{?{name}\b", drawn)} == set()
    assert "route" in {one["name"] for one in variables}  # links hand it on


def colours(panel):
    """A panel's series that have a colour of their own, by name."""
    overrides = panel.get("fieldConfig", {}).get("overrides", ())
    return {
        override["matcher"]["options"]: one["value"]["fixedColor"]
        for override in overrides
        for one in override["properties"]
        if one["id"] == "color"
    }


def values_of(target):
    """The values of the label that names a query's series."""
    (label,) = re.fullmatch(r"\{\{(\w+)\}\}", target["legendFormat"]).groups()
    (selector, *_) = Expression("", filled(target["expr"])).selectors()
    metric = known_metrics()[selector.name]
    at = metric.labels.index(label) - len(metric.labels)
    return {values[at] for values in metric.series}


@pytest.mark.parametrize("path", DASHBOARDS, **ids)
def test_no_two_series_have_one_colour(path):
    # What has no colour of its own takes one of the palette, which may be another's.
    for panel in panels(path):
        if found := colours(panel):
            assert found.keys() == values_of(*panel["targets"]), panel["title"]
            assert len(set(found.values())) == len(found), panel["title"]


def unknown(expression: Expression) -> list[str]:
    known = known_metrics().keys() | recorded().keys() | PROMETHEUS_OWN
    return [s.name for s in expression.selectors() if s.name not in known]


@pytest.mark.parametrize("expression", expressions(), ids=lambda e: e.where)
def test_expression_is_valid_and_in_the_catalogue(expression):
    assert unknown(expression) == []


@pytest.mark.parametrize("expression", expressions(), ids=lambda e: e.where)
def test_labels_in_matchers_exist(expression):
    for selector in expression.selectors():
        if selector.name in known_metrics():
            allowed = {*known_metrics()[selector.name].labels, "job", "instance"}
            assert set(selector.labels) <= allowed, selector.name


@pytest.mark.parametrize("expression", expressions(), ids=lambda e: e.where)
def test_totals_stand_under_a_rate(expression):
    if any(title in expression.where for title in BOOKS):
        return
    for name, functions in _functions(expression).items():
        if "count_over_time" not in functions:
            assert functions <= {"rate", "increase"}, name
        else:  # what a series is born with, which increase() does not see
            assert functions == {"none", "count_over_time", "increase"}, name


def _functions(expression: Expression) -> dict[str, set[str]]:
    """The innermost functions around each counter and histogram."""
    found: dict[str, set[str]] = {}
    for selector in expression.selectors():
        metric = known_metrics().get(selector.name)
        if metric is not None and metric.kind is not Kind.GAUGE:
            found.setdefault(selector.name, set()).update(selector.functions[-1:] or ("none",))
    return found


def test_violations_that_are_born_with_their_series_are_counted():
    """Most rules have no series before they are broken."""
    name = "websocket_server_protocol_violations_total"
    reading = [e for e in expressions() if name in _functions(e)]
    assert len(reading) == 7
    for expression in reading:
        assert "count_over_time" in _functions(expression)[name], expression.where


def test_targets_are_told_apart_by_the_labels_of_the_settings_alone():
    """They may be given more, such as the cluster."""
    sources = [path for path in (ROOT / "grafana/mixin").rglob("*.py") if path.stem != "config"]
    assert len(sources) > 15
    for path in sources:
        assert not re.search(r"\((job|instance)\b", path.read_text(encoding="utf-8")), path.name


def test_the_expression_that_the_documentation_recommends_is_the_mixins_own():
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"```promql\n(.*?)```", page, re.S)
    made = grown(CLOSES, window="10m")
    assert str(promql_parser.parse(shown)) == str(promql_parser.parse(made))


def test_what_the_documentation_recommends_to_alert_on_tells_jobs_and_hosts_apart():
    page = (ROOT / "docs" / "watchdog.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"```promql\n(.*?)```", page, re.S)
    workers, connections = shown.splitlines()
    assert workers in [rule["expr"] for rule in alerts()]
    assert connections.startswith(f"sum by ({CONFIG.job('http_route', 'reason')}) (")


def test_what_the_catalogue_lacks_is_noticed():
    assert unknown(Expression("", "rate(websocket_server_handshake_total[5m])"))
    assert not unknown(Expression("", "sum(rate(websocket_server_handshakes_total[5m]))"))


def test_every_metric_is_on_a_panel_or_left_out_by_name():
    known = known_metrics()
    shown = {known[s.name].name for q in queries() for s in q.selectors() if s.name in known}
    assert set(METRICS) - shown == set(LEFT_OUT)


def test_json_is_what_a_person_can_read_a_diff_of():
    for path in DASHBOARDS:
        assert path.read_text().endswith("}\n")
        assert json.loads(path.read_text())["schemaVersion"] >= 36
