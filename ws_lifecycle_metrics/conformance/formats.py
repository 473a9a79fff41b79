"""The report for programs: json, junit, sarif, and GitHub's annotations."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from . import text
from .result import Report, Result, ServerRun, rule


def as_text(report: Report) -> str:
    """For people."""
    return "\n".join(text.lines(report))


def as_json(report: Report) -> str:
    """Everything, timelines included."""
    return json.dumps(as_object(report), indent=2)


def as_object(report: Report) -> dict[str, Any]:
    """Return the report as plain data."""
    return {
        "target": report.target,
        "exit_code": report.exit_code,
        "ignored": sorted(report.ignored),
        "servers": [_server_object(server) for server in report.servers],
    }


def _server_object(server: ServerRun) -> dict[str, Any]:
    return {
        "name": server.name,
        "version": server.version,
        "skipped": server.skipped,
        "failed": server.failed,
        "interrupted": server.interrupted,
        "seconds": server.seconds,
        "results": [_result_object(result) for result in server.results],
    }


def _result_object(result: Result) -> dict[str, Any]:
    return {
        "scenario": result.scenario,
        "title": result.title,
        "verdict": result.verdict,
        "unclear": result.unclear,
        "findings": [_rule_object(id) for id in result.findings],
        "timeline": [
            {"at": round(line.at, 4), "side": line.side, "text": line.text, "rules": line.rules}
            for line in text.folded(result.timeline)
        ],
        "seconds": result.seconds,
    }


def _rule_object(id: str) -> dict[str, str]:
    broken = rule(id)
    return {
        "id": id,
        "party": str(broken.party),
        "severity": str(broken.severity),
        "meaning": broken.meaning,
        "spec": broken.spec,
        "hint": broken.hint,
    }


def as_junit(report: Report) -> str:
    """One suite a server, one case a scenario."""
    suites = "\n".join(_suite(server) for server in report.servers)
    head = '<?xml version="1.0" encoding="utf-8"?>'
    return f'{head}\n<testsuites name="ws-lifecycle-metrics">\n{suites}\n</testsuites>'


def _suite(server: ServerRun) -> str:
    cases = [_case(server, result) for result in server.results]
    why = server.skipped or server.failed
    if why:
        kind = "skipped" if server.skipped else "error"
        cases.append(
            f'<testcase classname={quoteattr(server.label)} name="start">'
            f"<{kind} message={quoteattr(_printable(why))}/></testcase>"
        )
    broken = sum(bool(result.findings) and not result.unclear for result in server.results)
    errors = sum(bool(result.unclear) for result in server.results) + bool(server.failed)
    counts = f'tests="{len(cases)}" failures="{broken}" errors="{errors}"'
    counts += f' skipped="{int(bool(server.skipped))}" time="{server.seconds:g}"'
    return (
        f"<testsuite name={quoteattr(server.label)} {counts}>\n"
        + "\n".join(cases)
        + "\n</testsuite>"
    )


def _case(server: ServerRun, result: Result) -> str:
    head = (
        f"<testcase classname={quoteattr(server.label)} name={quoteattr(result.scenario)}"
        f' time="{result.seconds:g}">'
    )
    if result.unclear:
        return f"{head}<error message={quoteattr(_printable(result.unclear))}/></testcase>"
    if not result.findings:
        return head + "</testcase>"
    message = quoteattr(", ".join(result.findings))
    body = "\n".join(f"{line.at:8.3f} {line.side} {line.text}" for line in result.timeline[:200])
    return f"{head}<failure message={message}>{escape(_printable(body))}</failure></testcase>"


def _printable(value: str) -> str:
    """Leave out what XML 1.0 cannot hold."""
    return "".join(c if c in "\n\t" or c >= " " else "?" for c in value)


_LEVELS = {"error": "error", "warning": "warning", "info": "note"}


def as_sarif(report: Report) -> str:
    """SARIF 2.1.0, for code scanning."""
    used = sorted({id for result in report.results for id in result.findings})
    driver = {"name": "ws-lifecycle-metrics", "rules": [_sarif_rule(id) for id in used]}
    found = [
        _sarif_result(server, result, id, report.target)
        for server in report.servers
        for result in server.results
        for id in result.findings
    ]
    invocation = {
        # Whether it did its work: what it found is no failure of its own.
        "executionSuccessful": report.exit_code in (0, 1),
        "exitCode": report.exit_code,
        "toolExecutionNotifications": list(_sarif_notifications(report)),
    }
    document = {
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{"tool": {"driver": driver}, "invocations": [invocation], "results": found}],
    }
    return json.dumps(document, indent=2)


def _sarif_notifications(report: Report) -> Iterator[dict[str, Any]]:
    """Say what could not run: a run without results is not a clean one."""

    def notification(level: str, message: str) -> dict[str, Any]:
        return {"level": level, "message": {"text": message}}

    for server in report.servers:
        if server.skipped:
            yield notification("note", f"{server.label}: skipped: {server.skipped}")
        if server.failed:
            yield notification("error", f"{server.label}: could not run: {server.failed}")
        for result in server.results:
            if result.unclear:
                what = f"{server.label}, {result.title}: could not run: {result.unclear}"
                yield notification("error", what)


def _sarif_rule(id: str) -> dict[str, Any]:
    broken = rule(id)
    return {
        "id": id,
        "shortDescription": {"text": broken.meaning},
        "fullDescription": {"text": broken.spec},
        "help": {"text": broken.hint},
        "defaultConfiguration": {"level": _LEVELS[broken.severity]},
        "properties": {"party": str(broken.party)},
    }


def _sarif_result(server: ServerRun, result: Result, id: str, target: str) -> dict[str, Any]:
    location: dict[str, Any] = {
        "logicalLocations": [{"fullyQualifiedName": f"{server.label}/{result.scenario}"}]
    }
    if target:
        place = target.partition(":")[0].replace(".", "/") + ".py"
        location["physicalLocation"] = {"artifactLocation": {"uri": place}}
    return {
        "ruleId": id,
        "level": _LEVELS[rule(id).severity],
        "message": {"text": f"{server.label}, {result.title}: {rule(id).meaning}"},
        "locations": [location],
    }


def as_github(report: Report) -> str:
    """Workflow commands that become annotations."""
    lines = []
    for server in report.servers:
        if server.skipped:
            lines.append(_command("notice", server.label, f"skipped: {server.skipped}"))
        if server.failed:
            lines.append(_command("error", server.label, f"could not run: {server.failed}"))
        for result in server.results:
            if result.unclear:
                message = f"{result.title}: could not run: {result.unclear}"
                lines.append(_command("error", server.label, message))
            for id in result.findings:
                level = "error" if rule(id).severity == "error" else "warning"
                message = f"{result.title}: {rule(id).meaning}; {rule(id).hint}"
                lines.append(_command(level, f"{id} on {server.label}", message))
    return "\n".join(lines)


def _command(level: str, title: str, message: str) -> str:
    return f"::{level} title={_escaped(title, ',:')}::{_escaped(message)}"


def _escaped(value: str, more: str = "") -> str:
    for character in "%\r\n" + more:
        value = value.replace(character, f"%{ord(character):02X}")
    return value


FORMATS: Mapping[str, Callable[[Report], str]] = MappingProxyType(
    {
        "text": as_text,
        "json": as_json,
        "junit": as_junit,
        "sarif": as_sarif,
        "github": as_github,
    }
)
