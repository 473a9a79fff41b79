"""The committed files as data, and the metrics that their expressions name."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import promql_parser
import pytest
import yaml

from ws_lifecycle_metrics.catalog import METRICS, Kind, Metric

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
GRAFANA = ROOT / "grafana"
RULE_TESTS = ROOT / "tests" / "rules" / "alerts"
DASHBOARDS = sorted((GRAFANA / "dashboards").glob("*.json"))
PROMETHEUS_OWN = {"up", "ALERTS"}
_PLACEHOLDERS = {"$__rate_interval": "5m", "$__range": "1h", "$__interval": "1m"}


@cache
def known_metrics() -> dict[str, Metric]:
    """Every name that a scrape has, histograms' three included, to its metric."""
    found = {}
    for metric in METRICS.values():
        suffixes = ("_bucket", "_sum", "_count") if metric.kind is Kind.HISTOGRAM else ("",)
        found.update({metric.prometheus + suffix: metric for suffix in suffixes})
    return found


@dataclass(frozen=True)
class Expression:
    """One expression and where it stands; `text` has Grafana's variables filled in."""

    where: str
    text: str

    def selectors(self) -> list[Selector]:
        """The series that it reads."""
        return list(_walk(promql_parser.parse(self.text), ()))


@dataclass(frozen=True)
class Selector:
    """One selector: metric, label names that it matches, functions around it from outside in."""

    name: str
    labels: tuple[str, ...]
    functions: tuple[str, ...]


def _walk(node: Any, functions: tuple[str, ...]) -> Iterator[Selector]:
    match node:
        case promql_parser.VectorSelector():
            labels = tuple(matcher.name for matcher in node.matchers.matchers)
            yield Selector(node.name, labels, functions)
        case promql_parser.MatrixSelector():
            yield from _walk(node.vector_selector, functions)
        case promql_parser.Call():
            for argument in node.args:
                yield from _walk(argument, (*functions, node.func.name))
        case promql_parser.BinaryExpr():
            yield from _walk(node.lhs, functions)
            yield from _walk(node.rhs, functions)
        case promql_parser.NumberLiteral() | promql_parser.StringLiteral():
            pass
        case _:  # an aggregation, brackets, a sign, a subquery
            yield from _walk(node.expr, functions)


def filled(text: str) -> str:
    """Put values for Grafana's variables."""
    for name, value in _PLACEHOLDERS.items():
        text = text.replace(name, value)
    return re.sub(r"\$(job|instance|route|operation)\b", ".+", text)


@cache
def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def dashboard(path: Path) -> dict[str, Any]:
    return json.loads(_text(path))


def panels(path: Path) -> list[dict[str, Any]]:
    """The panels of a dashboard, without rows."""
    return [panel for panel in dashboard(path)["panels"] if panel["type"] != "row"]


def queries() -> list[Expression]:
    """Every query of every panel and annotation."""
    found = []
    for path in DASHBOARDS:
        for panel in panels(path):
            for target in panel.get("targets", ()):
                where = f"{path.stem}: {panel['title']} {target['refId']}"
                found.append(Expression(where, filled(target["expr"])))
        for annotation in dashboard(path)["annotations"]["list"]:
            where = f"{path.stem}: {annotation['name']}"
            found.append(Expression(where, filled(annotation["expr"])))
    return found


@cache
def rules() -> list[dict[str, Any]]:
    """Every recording rule and alert."""
    files = sorted((GRAFANA / "alerts").glob("*.yml"))
    groups = [group for path in files for group in yaml.safe_load(path.read_text())["groups"]]
    return [rule for group in groups for rule in group["rules"]]


def alerts() -> list[dict[str, Any]]:
    return [rule for rule in rules() if "alert" in rule]


def recorded() -> dict[str, str]:
    """Names of recording rules to their expressions."""
    return {rule["record"]: rule["expr"] for rule in rules() if "record" in rule}


def expressions() -> list[Expression]:
    """Everything in PromQL that is shipped."""
    named = [Expression(rule.get("alert", rule.get("record")), rule["expr"]) for rule in rules()]
    return queries() + named


def run(program: str, *arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run one of Prometheus' tools, or skip with the reason."""
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed (Debian: prometheus, prometheus-alertmanager)")
    return subprocess.run(
        [program, *arguments], cwd=cwd, capture_output=True, text=True, timeout=120, check=False
    )
