"""Write the documentation's tables from the code: docs/*.md, and the marked parts of the README.

python -m docs.generate            write
python -m docs.generate --check    only say what is not current; exit code 1 if anything is
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any

from ws_lifecycle_metrics.catalog import METRICS, SKIPPED_SEGMENTS, Metric
from ws_lifecycle_metrics.config import Config, ExporterConfig, environment_name
from ws_lifecycle_metrics.protocol import RULES, Rule
from ws_lifecycle_metrics.telemetry.logs import PERIOD

ROOT = Path(__file__).resolve().parents[1]
NOTE = "<!-- Written by `make docs` from {source}; edit that instead. -->\n"

TELLING_RULES = (
    "app.send-after-close",
    "app.send-after-disconnect",
    "app.receive-after-disconnect",
    "app.receive-concurrent",
    "app.return-without-close",
    "app.return-before-handshake",
    "app.exception",
    "server.duplicate-connect",
    "server.accept-failed",
    "server.send-failed",
    "server.event-after-disconnect",
)
"""The rules on the README's first screen; the rest are in docs/rules.md."""


CLOSE_CODES = """\
The code in `websocket_server_closes_total` is the one that the server delivered, and servers make
different codes of the same end. So they did in uvicorn 0.54, Granian 2.8, Hypercorn 0.18 and
Daphne 4.2:

- A client that vanishes without a close frame (an RST) comes from Granian and from uvicorn as
  `1005` of the client, the same as a close frame without a code.
- `1006` of the client is only counted where the server delivers it, or where a send finds the
  client gone. Delivered it is by uvicorn with `--ws websockets`, by Daphne, and by Hypercorn,
  which gives it for every close, whatever the client sent.
- At a SIGTERM uvicorn closes with `1012`, which is counted as the server's.
- At a SIGTERM Granian ends open connections without a close frame, and a race decides how they
  count: as `1005` of the client, as if the clients had left, or, if the process is gone before the
  application hears of it, as lost.
- An application that returns or raises without a close counts as closed by the `server` with the
  code `other`, since nobody had sent a close before the end; an exception also in
  `websocket_server_app_errors_total`.
- `websocket_server_lost_connections_total` has all connections that had not ended when their
  worker died, those in the state `closing` too.
"""


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a Markdown table; a line break or a bar in a cell is kept from ending it."""
    head = list(head)
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(_cell(c) for c in line)} |\n" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _codes(values: Iterable[object]) -> str:
    return ", ".join(f"`{value}`" for value in values)


# Pages.


def rules_page() -> str:
    """Return docs/rules.md."""
    parts = [
        NOTE.format(source="ws_lifecycle_metrics/protocol/rules.py"),
        "# Rules\n",
        f"{len(RULES)} rules. A violation counts in `websocket_server_protocol_violations_total` "
        "under the rule's id and the party at fault, and is logged at most once in "
        f"{PERIOD:.0f} seconds for each rule: errors and warnings as such, infos at level debug. "
        "The ids are stable. `ws-lifecycle-metrics rules ID` prints an entry of this page.\n",
        "- **error**: the specification says must, or one side will break.\n"
        "- **warning**: it says should, or some servers are known to break.\n"
        "- **info**: legal, and worth counting.\n",
    ]
    titles = {"app": "The application's", "server": "The server's"}
    for party, title in titles.items():
        found = [rule for rule in RULES.values() if rule.party == party]
        parts += [f"## {title}\n", *(_rule_section(rule) for rule in found)]
    return "\n".join(parts)


def _rule_section(rule: Rule) -> str:
    return (
        f"### `{rule.id}`\n\n"
        f"{_sentence(rule.meaning)} (**{rule.severity}**)\n\n"
        f"- Specification: {_sentence(rule.spec)}\n"
        f"- What to do: {_sentence(rule.hint)}\n"
    )


def _sentence(text: str) -> str:
    word = text.partition(" ")[0]
    start = word[:1].upper() + word[1:] if word.isalpha() else word  # not of receive() or a key
    return start + text[len(word) :].rstrip(".") + "."


def metrics_page() -> str:
    """Return docs/metrics.md."""
    groups: dict[str, list[Metric]] = {}
    for metric in METRICS.values():
        groups.setdefault(_group(metric), []).append(metric)
    parts = [
        NOTE.format(source="ws_lifecycle_metrics/catalog.py"),
        "# Metrics\n",
        "The series of a route stand at 0 from the moment that the route is known, so an alert on "
        "an increase sees the first event too; what is rare appears with its "
        "[first event](#series-that-wait). Counters never fall and never go away while the "
        "directory of segments exists, whatever happens to workers; while it cannot be used, such "
        "as with a mode that lets others write, there are none of them. Gauges are computed from "
        "the live connections at each collection.\n",
        "A segment of another version of this package, as an update leaves it, cannot be read: it "
        f"counts in {_codes([SKIPPED_SEGMENTS.prometheus])}, and once its worker has ended and "
        "it is a day old, a sidecar or a new worker removes it. `doctor` prints the command that "
        "does so at once.\n",
    ]
    for title, metrics in groups.items():
        parts += [
            f"## {title}\n",
            table(("metric", "kind", "labels", "meaning"), map(_row, metrics)),
        ]
    parts += ["## Buckets\n", table(("histogram", "upper bounds in seconds"), _buckets())]
    parts += ["## Series that wait\n", _waiting()]
    parts += ["## What a close code tells\n", CLOSE_CODES]
    parts += ["## Values of labels\n", _label_values()]
    return "\n".join(parts)


_GROUPS = {
    "websocket.": "WebSockets",
    "graphql.": "GraphQL",
    "asgi.": "Workers",
    "ws_lifecycle_metrics.": "This package itself",
}


def _group(metric: Metric) -> str:
    return next(title for prefix, title in _GROUPS.items() if metric.name.startswith(prefix))


def _row(metric: Metric) -> tuple[str, ...]:
    return f"`{metric.prometheus}`", str(metric.kind), _codes(metric.labels), metric.help


def _buckets() -> list[tuple[str, str]]:
    found = [metric for metric in METRICS.values() if metric.buckets]
    return [(f"`{m.prometheus}`", ", ".join(f"{b:g}" for b in m.buckets)) for m in found]


def _waiting() -> str:
    """Say which series do not stand at 0 from the start."""
    late = [m for m in METRICS.values() if m.zeros != m.series]
    rows = [(f"`{m.prometheus}`", _sets(m, m.zeros)) for m in late]
    typed = [m for m in METRICS.values() if "graphql_operation_name" in m.labels]
    single = [m for m in typed if m.operation_type]
    return (
        "A series that is never counted costs Prometheus as much as one that is, on each host and "
        "for each route. Of these metrics some stand at 0 from the start, and the others appear "
        "with their first event:\n\n"
        + table(("metric", "at 0 from the start"), rows)
        + "\nAn operation of GraphQL has its series from its first run, of the types that it was "
        f"seen with; {_codes(m.prometheus for m in single)} it has once it was a "
        f"{single[0].operation_type}. Without GraphQL there are none.\n\n"
        "`increase()` and `rate()` do not see the event with which a series appears. The alerts "
        "and the panels that count violations do: they also take the value of each series that "
        "was not there when the time shown began and has fewer samples in it than the target "
        "itself, so that old totals which are merely scraped for the first time, or which end, "
        "are not taken for new ones. For an alert of your own:"
        "\n\n```promql\n"
        "websocket_server_closes_total\n"
        "  and count_over_time(websocket_server_closes_total[10m])\n"
        "    < on (job, instance) group_left () "
        "max by (job, instance) (count_over_time(asgi_exporter_time_seconds[10m]))\n"
        f"  unless on (job, instance, {', '.join(METRICS['websocket.server.closes'].labels)}) "
        "websocket_server_closes_total offset 10m\n"
        "or increase(websocket_server_closes_total[10m])\n```\n"
    )


def _sets(metric: Metric, series: Iterable[tuple[str, ...]]) -> str:
    """Return label sets in words: the values of the last label for each of those before it."""
    names = metric.labels[len(metric.labels) - len(metric.series[0]) :]
    groups: dict[tuple[str, ...], list[str]] = {}
    for *first, last in series:
        groups.setdefault(tuple(first), []).append(last)
    return "; ".join(
        " ".join((*(f"{n} `{v}`," for n, v in zip(names, first, strict=False)), names[-1]))
        + f" {_codes(values)}"
        for first, values in groups.items()
    )


def _label_values() -> str:
    known: dict[str, dict[str, None]] = {}
    for metric in METRICS.values():
        # `series` are the values of the last labels: those that no block stands for.
        for values in metric.series:
            names = metric.labels[len(metric.labels) - len(values) :]
            for name, value in zip(names, values, strict=True):
                if value and name not in ("rule", "subprotocol"):
                    known.setdefault(name, {})[value] = None
    rows = [(f"`{name}`", _codes(values)) for name, values in known.items()]
    rows += [
        ("`rule`", "the ids in [rules.md](rules.md)"),
        (
            "`http_route`",
            f"route templates: those in the option `routes`, then the first ones seen, "
            f"{_default(Config, 'max_routes')} in all (`max_routes`); the rest is `other`",
        ),
        (
            "`subprotocol`",
            f"the accepted one, empty if there is none; {_default(Config, 'max_subprotocols')} are "
            "kept apart (`max_subprotocols`); the rest is `other`",
        ),
        ("`worker`", "a slot from 0, given again when its worker is gone; never a process id"),
    ]
    return table(("label", "values"), rows)


def configuration_page() -> str:
    """Return docs/configuration.md."""
    return "\n".join(
        (
            NOTE.format(source="ws_lifecycle_metrics/config.py"),
            "# Configuration\n",
            "Nothing needs to be configured. What is given in code or as a flag comes first, then "
            "the environment, then the default. An unknown option or a value that is not accepted "
            "raises `ConfigError`, a `ValueError`, with the option's name.\n",
            "## Middleware: `Config`\n",
            table(("option", "environment", "default", "meaning"), map(_option, fields(Config))),
            "Lists in the environment are separated by commas.\n",
            "## Sidecar: `ws-lifecycle-metrics serve`\n",
            "Each option is also a flag: `header_timeout` is `--header-timeout`. Times are in "
            "seconds.\n",
            table(
                ("option", "environment", "default", "meaning"),
                map(_option, fields(ExporterConfig)),
            ),
            "## The service's name\n",
            f"`service`, else `{environment_name('service')}`, else `OTEL_SERVICE_NAME`, else "
            f"`{_default(Config, 'service')}`. In a name from the environment, what is no letter, "
            "digit, dot, underscore or hyphen becomes a hyphen.\n",
        )
    )


def _option(item: Field[Any]) -> tuple[str, ...]:
    default = item.metadata.get("default", item.default)
    if default in ((), "", None, MISSING):
        shown = "empty" if default in ((), "") else "none"
    else:
        shown = f"`{','.join(default) if isinstance(default, tuple) else default}`"
    # Without a parser there is nothing that text could become: a callable, for example.
    environment = f"`{environment_name(item.name)}`" if "parse" in item.metadata else "none"
    return f"`{item.name}`", environment, shown, str(item.metadata["help"])


def _default(config: type[Any], option: str) -> object:
    return next(f for f in fields(config) if f.name == option).metadata["default"]


PAGES: Mapping[str, Callable[[], str]] = {
    "docs/rules.md": rules_page,
    "docs/metrics.md": metrics_page,
    "docs/configuration.md": configuration_page,
}


# Parts of the README, between `<!-- generated: NAME -->` and `<!-- end: NAME -->`.


def _telling_rules() -> str:
    rows = (
        (f"`{rule.id}`", str(rule.severity), rule.meaning)
        for rule in (RULES[rule_id] for rule_id in TELLING_RULES)
    )
    return "\n" + table(("rule", "severity", "meaning"), rows)


BLOCKS: Mapping[str, Callable[[], str]] = {
    "rules": _telling_rules,
    "number of rules": lambda: str(len(RULES)),
    "number of metrics": lambda: str(len(METRICS)),
    "max_routes": lambda: str(_default(Config, "max_routes")),
    "log period": lambda: f"{PERIOD:.0f}",
    "port": lambda: str(_default(ExporterConfig, "port")),
}

_PART = re.compile(r"(<!-- generated: (?P<name>[^>]+?) -->).*?(<!-- end: (?P=name) -->)", re.DOTALL)


def fill(text: str) -> str:
    """Return the README with its generated parts made anew; raises KeyError for an unknown one."""
    return _PART.sub(lambda m: f"{m[1]}{BLOCKS[m['name']]()}{m[3]}", text)


def outputs() -> dict[Path, str]:
    """Return what each generated file should hold."""
    found = {ROOT / name: page() for name, page in PAGES.items()}
    readme = ROOT / "README.md"
    return {**found, readme: fill(readme.read_text())}


def stale() -> list[Path]:
    """Return the files that are not what the code would make of them."""
    return [
        path for path, text in outputs().items() if not path.exists() or path.read_text() != text
    ]


def main(arguments: list[str]) -> int:
    """Write, or check; return the exit code."""
    if arguments not in ([], ["--check"]):
        sys.stderr.write("usage: python -m docs.generate [--check]\n")
        return 2
    found = stale()
    for path in found:
        if not arguments:
            path.write_text(outputs()[path])
        verb = "is not current; run make docs" if arguments else "written"
        sys.stdout.write(f"{path.relative_to(ROOT)}: {verb}\n")
    return 1 if arguments and found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
