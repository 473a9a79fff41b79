"""The plots of the tables, as SVG that is the same whenever the results are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .measure import NOOP, OURS, Figure
from .part import Panel, Part
from .results import Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Ours, then others; an older and a newer Python. On a background of its own: a reader's page may
# be light or dark.
ACCENT, OTHER, INK, PAPER = ("#0b7285", "#66d9e8"), ("#868e96", "#ced4da"), "#212529", "#ffffff"
STYLE: Any = {
    "svg.hashsalt": "ws-lifecycle-metrics",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#adb5bd",
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "figure.facecolor": PAPER,
    "axes.facecolor": PAPER,
    "savefig.facecolor": PAPER,
}


def plot_name(part: str, panel: Panel) -> str:
    """Return the name of a panel's file."""
    return f"{part}-{panel.name}.svg"


def draw_all(
    parts: Sequence[Part], results: Mapping[str, Sequence[Result]], folder: Path
) -> list[Path]:
    """Draw each panel of each part, all Pythons in one plot; return the files."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    for part in parts:
        panels: dict[str, dict[str, Panel]] = {}
        for one in results.get(part.NAME, ()):
            for panel in part.panels(one.data):
                panels.setdefault(panel.name, {})[one.python] = panel
        for by_python in panels.values():
            path = folder / plot_name(part.NAME, next(iter(by_python.values())))
            draw(by_python, path)
            drawn.append(path)
    return drawn


def draw(panels: Mapping[str, Panel], path: Path) -> None:
    """Draw one panel, a series for each Python."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot

    first = next(iter(panels.values()))
    with mpl.rc_context(STYLE):
        names = list(dict.fromkeys(name for panel in panels.values() for name in panel.values))
        height = 1.3 + 0.19 * len(names) * (len(panels) + 0.6) if names else 3.2
        canvas, axes = pyplot.subplots(figsize=(7.6, height), layout="constrained")
        axes.set_title(first.title, loc="left", fontweight="bold")
        if names:
            _bars(axes, panels, names)
        else:
            _lines(axes, panels)
        canvas.savefig(path, metadata={"Date": None})
        pyplot.close(canvas)
    # Matplotlib ends lines of paths with blanks.
    text = path.read_text(encoding="utf-8")
    path.write_text("\n".join(map(str.rstrip, text.splitlines())) + "\n", encoding="utf-8")


def _bars(axes: Axes, panels: Mapping[str, Panel], names: Sequence[str]) -> None:
    first = next(iter(panels.values()))
    width = 0.8 / len(panels)
    least = min(f.median for panel in panels.values() for f in panel.values.values())
    for number, (python, panel) in enumerate(panels.items()):
        for row, name in enumerate(names):
            if name in panel.values:
                at = row + (number - (len(panels) - 1) / 2) * width
                _bar(axes, at, width, name, panel.values[name], number)
        axes.barh(0, 0, color=OTHER[number % 2], label=python)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlabel(first.unit)
    axes.margins(x=0.12, y=0.02)
    if first.log and least > 0:  # in a run of a few messages a difference can be anything
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set_xlim(left=min(1.0, least * 0.8))
    elif least >= 0:
        axes.set_xlim(left=0)
    if len(panels) > 1:
        axes.legend(frameon=False, loc="best")


def _bar(axes: Axes, at: float, width: float, name: str, value: Figure, number: int) -> None:
    own = OURS in name
    color = (ACCENT if own else OTHER)[number % 2]
    spread = [[max(0, value.median - value.low)], [max(0, value.high - value.median)]]
    axes.barh(at, value.median, height=width * 0.92, color=color)
    axes.errorbar(value.median, at, xerr=spread, color=INK, linewidth=0.7, capsize=1.5)
    axes.annotate(
        f"{value.median:.3g}" if value.median < 1000 else f"{value.median:,.0f}",
        (max(value.high, value.median), at),
        xytext=(4, 0),
        textcoords="offset points",
        va="center",
        fontsize=7.5,
        fontweight="bold" if own else "normal",
    )


def _lines(axes: Axes, panels: Mapping[str, Panel]) -> None:
    first = next(iter(panels.values()))
    for number, (python, panel) in enumerate(panels.items()):
        for name, points in panel.points.items():
            color = (OTHER if name == NOOP else ACCENT)[number % 2]
            label = name if len(panels) == 1 else f"{name}, {python}"
            axes.plot(*zip(*points, strict=True), color=color, marker="o", label=label)
    if first.log:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.set_ylim(bottom=0)
    axes.set_xlabel(first.across)
    axes.set_ylabel(first.unit)
    axes.legend(frameon=False)
