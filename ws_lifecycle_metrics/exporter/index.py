"""The index: one page of HTML that says what answers here and how the service is."""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha256
from html import escape

from .. import catalog
from .client import SAFETY, Answer
from .overview import Overview

STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif }
body { max-width: 52rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.4rem; margin-bottom: 0 }
dl { display: flex; flex-wrap: wrap; gap: 1rem 2.5rem; margin: 1.5rem 0 }
dt, th, footer { font-size: .85rem; opacity: .75; font-weight: normal }
dd { margin: 0; font-size: 1.6rem; font-variant-numeric: tabular-nums }
table { border-collapse: collapse; width: 100% }
th, td { text-align: right; padding: .25rem .5rem; border-bottom: 1px solid #8885 }
th:first-child, td:first-child { text-align: left; overflow-wrap: anywhere }
td { font-variant-numeric: tabular-nums }
"""
POLICY = SAFETY["Content-Security-Policy"] + (
    f"; style-src 'sha256-{b64encode(sha256(STYLE.encode()).digest()).decode()}'"
)
LINKS = {
    "/metrics": "for Prometheus",
    "/connections": "open connections as JSON, worst first",
    "/workers": "workers as JSON: beat, stack, sockets; stuck ones first",
    "/readyz": "whether it can collect",
    "/healthz": "whether all workers serve; /healthz/0: whether the worker 0 does",
}
PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{service}: WebSockets</title>
<style>{style}</style>
<h1>WebSockets of {service}</h1>
<p>State of every WebSocket and subscription of this host, read from outside of its workers.</p>
{body}
<ul>
{links}
</ul>
<footer>ws-lifecycle-metrics {version}</footer>
</html>
"""


def index(service: str, version: str, now: Overview | str) -> Answer:
    """Return the page; `now` is what was collected, or why nothing was."""
    body = f"<p><strong>{escape(now)}</strong></p>" if isinstance(now, str) else _body(now)
    links = [f'<li><a href="{path}">{path}</a> {text}</li>' for path, text in LINKS.items()]
    page = PAGE.format(
        service=escape(service),
        style=STYLE,
        body=body,
        links="\n".join(links),
        version=escape(version),
    )
    return Answer(
        200,
        page.encode("utf-8", "backslashreplace"),
        "text/html; charset=utf-8",
        {"Content-Security-Policy": POLICY},
    )


def _body(now: Overview) -> str:
    figures = {
        "workers": now.workers,
        **now.active,
        "violations": now.violations,
        "stuck": now.stuck,
    }
    numbers = "\n".join(
        f"<div><dt>{escape(name)}</dt><dd>{value}</dd></div>" for name, value in figures.items()
    )
    rows = [_row("td", (r.route, *r.active.values(), r.violations)) for r in now.routes]
    head = _row("th", ("route", *catalog.STATE_LABELS, "violations"))
    failing = "".join(
        f"<p><strong>{escape(h.name)} does not serve: {escape(h.detail)}</strong></p>\n"
        for h in now.failing
    )
    return f"{failing}<dl>\n{numbers}\n</dl>\n<table>\n{head}\n{chr(10).join(rows)}\n</table>"


def _row(cell: str, values: tuple[object, ...]) -> str:
    return "<tr>" + "".join(f"<{cell}>{escape(str(v))}</{cell}>" for v in values) + "</tr>"
