"""`ws-lifecycle-metrics doctor`: versions known to be bad, the directory, segments, settings."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from ..config import ExporterConfig
from .options import Refused, config_options, configured

if TYPE_CHECKING:
    from ..conformance.finding import Finding

COLOURS = {"error": "red", "warning": "yellow", "note": "cyan", "ok": "green"}
ORDER = ("error", "warning", "note", "ok")


@click.command()
@config_options(
    ExporterConfig,
    *("service", "directory", "host", "port"),
    host="Address where the sidecar answers.",
    port="Port where the sidecar answers.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor(as_json: bool, **given: str | None) -> None:
    """Look for what is known to be wrong.

    Versions of servers and frameworks with known faults, the directory of segments, shared
    memory, the sidecar, the clock, and settings that hide a hung worker. A fault that no version
    has fixed is a note. Exit code 0: nothing to do, 1: findings, 2: could not run.
    """
    from ..config import Config
    from ..conformance import doctor as doctor_module

    exporter = configured(ExporterConfig, given)
    if not exporter.port:
        raise Refused("port=0: no sidecar answers there; serve says at its start which one it has")
    same = {name: given[name] for name in ("service", "directory")}
    config = configured(Config, same)  # a worker's environment is looked at, too
    findings = doctor_module.examine(config, exporter)
    if as_json:
        click.echo(doctor_module.as_json(findings))
    else:
        _print(findings)
    sys.exit(doctor_module.exit_code(findings))


def _print(findings: list[Finding]) -> None:
    from ..labels import MAX_LENGTH, safe_label
    from .screen import coloured

    colours = coloured()
    for finding in sorted(findings, key=lambda finding: ORDER.index(finding.level)):
        parts = [finding.text[i : i + MAX_LENGTH] for i in range(0, len(finding.text), MAX_LENGTH)]
        level = _styled(finding.level)
        click.echo(f"{level} {finding.subject}: {''.join(map(safe_label, parts))}", color=colours)
        for extra in filter(None, (finding.advice, finding.source)):
            click.echo(f"         {extra}")


def _styled(level: str) -> str:
    return click.style(f"{level:<8}", fg=COLOURS[level], bold=level == "error" or None)
