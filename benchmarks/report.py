"""docs/benchmarks.md: the tables, and whether each bar is met, from the results alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from docs.generate import table

from .measure import ROOT
from .part import Bar, Part, shown
from .plots import plot_name
from .results import Result

PAGE = ROOT / "docs" / "benchmarks.md"
PLOTS = ROOT / "docs" / "plots"
NOTE = "<!-- Written by `python -m benchmarks` from benchmarks/results; edit that instead. -->\n"
ABOUT = """\
`make bench` measures all of this on your machine and writes this page. The results of another
Python, as with `make bench PYTHON=python3.13`, then stand beside. Each candidate has an environment
of its own with the newest versions; what is compared was measured in turn within one process, and
only values of the same round are compared. A figure is the median over all rounds and processes,
with the quartiles in brackets; all samples are in [benchmarks/results](../benchmarks/results).
"""


def page(parts: Sequence[Part], results: Mapping[str, Sequence[Result]]) -> str:
    """Return the page; a part without results is named as such."""
    found = ["\n".join((NOTE, "# Benchmarks\n", ABOUT, "## The bars\n", bars(parts, results)))]
    found += [_section(part, results.get(part.NAME, ())) for part in parts]
    return "\n".join(found)


def bars(parts: Sequence[Part], results: Mapping[str, Sequence[Result]]) -> str:
    """Return the table of what is demanded and what was measured."""
    pythons = list(dict.fromkeys(one.python for found in results.values() for one in found))
    rows = []
    for part in parts:
        by_python = {one.python: part.bars(one.data) for one in results.get(part.NAME, ())}
        for number, bar in enumerate(next(iter(by_python.values()), ())):
            cells = [_verdict(by_python[p][number]) if p in by_python else "" for p in pythons]
            rows.append([f"{part.TITLE}: {bar.demand}", _limit(bar), *cells])
    return table(("", "at most", *pythons), rows)


def _limit(bar: Bar) -> str:
    return f"{bar.limit:g} {bar.unit}"


def _verdict(bar: Bar) -> str:
    if bar.measured is None:
        return "not measured"
    digits = 3 if bar.limit < 2 else 2
    return f"{'met' if bar.met else '**not met**'}: {shown(bar.measured, digits)}"


def _section(part: Part, results: Sequence[Result]) -> str:
    found = [f"## {part.TITLE}\n", part.ABOUT + "\n"]
    if not results:
        return "\n".join((*found, "Not measured yet.\n"))
    panels = part.panels(results[0].data)
    found += [f"![{panel.title}](plots/{plot_name(part.NAME, panel)})\n" for panel in panels]
    for one in results:
        found += _tables(part, one)
    return "\n".join(found)


def _tables(part: Part, one: Result) -> list[str]:
    where = ", ".join(one.machine.values())
    effort, (before, after) = one.effort, one.load
    found = [
        f"### {part.TITLE}, {one.python}\n",
        f"{where}. {effort['processes']} processes × {effort['rounds']} rounds"
        + ("" if effort["size"] == 1 else f", {effort['size']:g} of the full counts")
        + f"; load of the machine {before:.1f} before, {after:.1f} after.\n",
        ", ".join(f"{name} {version}" for name, version in one.versions.items()) + ".\n",
    ]
    for shown_table in part.tables(one.data):
        if shown_table.title:
            found.append(f"**{shown_table.title}**\n")
        found.append(table(shown_table.head, shown_table.rows))
    missing = one.data.get("missing", {})
    found += [f"- {name} is not in it: {why}.\n" for name, why in missing.items()]
    return found


def write(
    parts: Sequence[Part], results: Mapping[str, Sequence[Result]], page_path: Path, plots: Path
) -> None:
    """Write the page and its plots."""
    from .plots import draw_all  # a chart library is no light import

    page_path.parent.mkdir(parents=True, exist_ok=True)
    page_path.write_text(page(parts, results), encoding="utf-8")
    draw_all(parts, results, plots)
