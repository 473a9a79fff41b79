"""`python -m ws_lifecycle_metrics.conformance.matrix FILE`: every server against every scenario.

Writes the table that the project publishes; `--json FILE` keeps the verdicts, for comparison.
"""

from __future__ import annotations

import argparse
import json
import platform
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from .check import run_servers
from .choose import choose
from .result import Report, Result, rule
from .rules import WIRE_RULES
from .scenarios import SCENARIOS

_MARKS = {"conforms": "✓", "hangs": "**hangs**", "unsupported": "n/a", "unclear": "?"}

_INTRODUCTION = """\
# How ASGI servers behave over a WebSocket's life

Written by `make conformance`: one reference application and one scripted client play each
scenario on each server, and both sides are compared with what the specification demands. A
fault is the server's here, also where the application breaks a rule first. ✓ conforms; n/a: the
server does not announce the extension, or the version of the specification, that demands it;
**hangs**: somebody waits for ever; otherwise the rules that were broken, explained below.
"""


def write(report: Report, date: str) -> Iterator[str]:
    """Yield the document line by line."""
    servers = [server for server in report.servers if server.results]
    yield _INTRODUCTION
    system = f"{platform.python_implementation()} {platform.python_version()}"
    yield f"{date}, {system} on {platform.system()}.\n"
    yield "| server | version | conforms | violates | hangs | not offered | seconds |"
    yield "|---|---|---|---|---|---|---|"
    for server in servers:
        verdicts = [result.verdict for result in server.results]
        counts = (str(verdicts.count(v)) for v in ("conforms", "violates", "hangs", "unsupported"))
        yield f"| {server.name} | {server.version} | {' | '.join(counts)} | {server.seconds:.0f} |"
    yield "\n## Scenarios\n"
    yield "| scenario | " + " | ".join(server.name for server in servers) + " |"
    yield "|---" * (len(servers) + 1) + "|"
    by_server = [{result.scenario: result for result in server.results} for server in servers]
    for id in SCENARIOS:
        cells = (_cell(results.get(id)) for results in by_server)
        yield f"| [{id}](#{id}) | {' | '.join(cells)} |"
    yield from _rules(report)
    yield "\n## What each scenario demands\n"
    for scenario in SCENARIOS.values():
        yield f'- <a id="{scenario.id}"></a>`{scenario.id}`: {scenario.title}. {scenario.spec}.'


def _cell(result: Result | None) -> str:
    if result is None:
        return ""
    names = "<br>".join(id.removeprefix("server.") for id in result.findings)
    if result.verdict == "violates":
        return names
    mark = _MARKS[result.verdict]
    return f"{mark}<br>{names}" if names else mark


def _rules(report: Report) -> Iterator[str]:
    used = {id for result in report.results for id in result.findings}
    yield "\n## The rules that were broken\n\n| rule | meaning | where it is said |\n|---|---|---|"
    for id in sorted(used):
        yield f"| `{id}` | {rule(id).meaning} | {rule(id).spec} |"
    unbroken = sorted(set(WIRE_RULES) - used)
    yield f"\nLooked for and not found: {', '.join(f'`{id}`' for id in unbroken)}."


def verdicts(report: Report) -> dict[str, dict[str, list[str]]]:
    """Return verdict and rules by server and scenario."""
    return {
        server.name: {r.scenario: [r.verdict, *sorted(r.findings)] for r in server.results}
        for server in report.servers
    }


def main() -> int:
    """Run the matrix; exit code 2 if a server could not be run or a scenario not be judged."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--server", action="append", default=[])
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # it has servers to end
    chosen, skipped = choose(options.server)
    began = time.monotonic()
    servers = run_servers(chosen, list(SCENARIOS.values()))
    report = Report(target="", servers=(*servers, *skipped))
    if report.interrupted:
        return report.exit_code  # half a table would be wrong
    options.file.write_text("\n".join(write(report, time.strftime("%Y-%m-%d"))) + "\n")
    if options.json:
        options.json.write_text(json.dumps(verdicts(report), indent=1))
    failed = [s.name for s in servers if s.failed]
    unclear = [f"{r.server}/{r.scenario}" for r in report.results if r.unclear]
    print(f"{len(servers)} servers, {len(SCENARIOS)} scenarios, {time.monotonic() - began:.0f} s")  # noqa: T201  # a program
    for problem in (*failed, *unclear):
        print(f"not judged: {problem}")  # noqa: T201  # a program
    return 2 if failed or unclear else 0


if __name__ == "__main__":
    sys.exit(main())
