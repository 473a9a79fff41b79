"""The report for people: what was found, and the timelines that show it."""

from __future__ import annotations

from collections.abc import Iterator

from ..labels import plural, safe_label
from .result import Line, Report, Result, ServerRun, rule


def lines(report: Report, *, all_timelines: bool = False) -> Iterator[str]:
    """Yield the report line by line; timelines only of what was found, unless all are wanted."""
    for server in report.servers:
        yield f"{server.label}: {_summary(server)}"
        for result in server.results:
            if result.findings or result.unclear or all_timelines:
                yield from _result(result, report)
    yield _verdict(report)


def _summary(server: ServerRun) -> str:
    if server.skipped:
        return f"skipped: {safe(server.skipped)}"
    if server.failed and not server.results:
        return f"could not run: {_last_line(server.failed)}"
    broken = sum(bool(result.findings) for result in server.results)
    unclear = sum(bool(result.unclear) for result in server.results)
    counts = ((broken, "with findings"), (unclear, "could not run"))
    done = f"{plural(len(server.results), 'scenario')} in {server.seconds:g} s, "
    done += ", ".join(f"{count} {what}" for count, what in counts if count) or "clean"
    return done + (f"; stopped: {_last_line(server.failed)}" if server.failed else "")


def _last_line(text: str) -> str:
    """Return the first line, and of what a server printed the last, which says why."""
    found = [line.strip() for line in text.splitlines() if line.strip()]
    if len(found) < 2:
        return safe(found[0]) if found else ""
    return f"{safe(found[0])} {safe(found[-1])}"


def safe(text: str) -> str:
    """Return a text of at most 400 characters, made harmless for a terminal."""
    return "".join(safe_label(text[i : i + 100]) for i in range(0, min(len(text), 400), 100))


def _result(result: Result, report: Report) -> Iterator[str]:
    verdict = f"could not run: {safe(result.unclear)}" if result.unclear else result.verdict
    yield f"  {result.scenario}: {result.title}: {verdict}"
    shown = set()
    for line in folded(result.timeline):
        yield f"    {line.at:8.3f} {line.side:<6} {safe(line.text)}"
        for id in line.rules:
            if id in result.findings:
                shown.add(id)
                yield from _finding(id)
    for id in result.findings:
        if id not in shown:  # silence has no moment
            yield from _finding(id)


def _finding(id: str) -> Iterator[str]:
    broken = rule(id)
    party = "the application" if broken.party == "app" else "the server"
    yield f"             ^ {broken.severity}: {party} broke {id}: {broken.meaning}"
    yield f"               {broken.spec}"
    yield f"               {broken.hint}"


def folded(timeline: tuple[Line, ...]) -> Iterator[Line]:
    """Yield the lines of a timeline, long runs of the same few events as one line."""
    recent: list[str] = []
    hidden = 0
    for line in timeline:
        if line.text in recent and not line.rules:
            hidden += 1
            if hidden > _REPEATS:
                continue
        elif hidden > _REPEATS:
            yield Line(line.at, "", f"… {hidden - _REPEATS} more of the same")
            hidden = 0
        recent = [*recent[-3:], line.text]
        yield line
    if hidden > _REPEATS:
        yield Line(timeline[-1].at, "", f"… {hidden - _REPEATS} more of the same")


_REPEATS = 8


def _verdict(report: Report) -> str:
    if report.interrupted:
        return "incomplete: interrupted"
    if report.exit_code == 2:
        failed = [_unjudged(server) for server in report.servers]
        failed = [server for server in failed if server]
        return f"could not run on {', '.join(failed)}" if failed else "could not run"
    found = [id for result in report.results for id in result.findings]
    if not found:
        return "clean"
    app = sum(rule(id).party == "app" for id in found)
    findings = plural(len(found), "finding")
    return f"{findings}: {app} of the application, {len(found) - app} of servers"


def _unjudged(server: ServerRun) -> str:
    """Name a server with the scenarios that could not run, or alone if it could not go on."""
    if server.failed:
        return server.label
    unclear = [result.scenario for result in server.results if result.unclear]
    return f"{server.label} ({', '.join(unclear)})" if unclear else ""
