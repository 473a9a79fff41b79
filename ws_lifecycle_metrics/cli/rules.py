"""`ws-lifecycle-metrics rules`: what is flagged, and what to do about it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from .options import unknown

if TYPE_CHECKING:
    from ..protocol import Rule

STYLES = {"error": "red", "warning": "yellow", "info": "dim"}


@click.command()
@click.argument("rule_id", metavar="[ID]", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def rules(rule_id: str | None, as_json: bool) -> None:
    """List the protocol's rules, or explain one.

    ID is a rule's, such as app.send-after-close.
    """
    from ..protocol import RULES

    if rule_id is not None:
        rule = _find(rule_id)
        click.echo(json.dumps(_as_object(rule), indent=2) if as_json else _explain(rule))
    elif as_json:
        click.echo(json.dumps({"rules": [_as_object(rule) for rule in RULES.values()]}, indent=2))
    else:
        _print_table(list(RULES.values()))


def _find(rule_id: str) -> Rule:
    from ..conformance.rules import WIRE_RULES
    from ..protocol import RULES

    rule = RULES.get(rule_id) or WIRE_RULES.get(rule_id)
    if rule is not None:
        return rule
    listed = "without ID those of the protocol are listed"
    raise unknown("rule", rule_id, [*RULES, *WIRE_RULES], listed)


def _as_object(rule: Rule) -> dict[str, str]:
    return {
        "id": rule.id,
        "party": str(rule.party),
        "severity": str(rule.severity),
        "meaning": rule.meaning,
        "spec": rule.spec,
        "hint": rule.hint,
    }


def _explain(rule: Rule) -> str:
    return "\n".join(f"{name + ':':<10}{value}" for name, value in _as_object(rule).items())


def _print_table(found: list[Rule]) -> None:
    from rich.table import Table

    from .screen import show, text

    table = Table("id", "party", "severity", "meaning", box=None, pad_edge=False)
    for column in table.columns[:3]:
        column.no_wrap = True
    for rule in found:
        severity = text(rule.severity, STYLES[rule.severity])
        table.add_row(rule.id, str(rule.party), severity, rule.meaning)
    show(lambda _width: table)
