"""Measure beside the peers, and write results, page and plots.

    python -m benchmarks [PART ...] [--effort full|quick|tiny] [--candidate NAME ...]

What is not a full measurement is written into .bench and printed, and changes no committed file.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from . import (
    growth,
    overhead,
    report,
    results,
    scrape,
    servers,
    subscriptions,
    tracing,
    watchdog_cost,
)
from .measure import EFFORTS
from .part import Part, Run
from .peers import CANDIDATES
from .places import CACHE, forget_environments, sink
from .processes import Deadline, MeasureError, forget_environment, say, told

PARTS: dict[str, Part] = {
    part.NAME: cast("Part", part)
    for part in (overhead, servers, scrape, growth, subscriptions, tracing, watchdog_cost)
}


def arguments(given: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--effort", choices=EFFORTS, default="full")
    parser.add_argument("--processes", type=int, help="of each candidate, instead of the effort's")
    parser.add_argument(
        "--candidate", action="append", choices=CANDIDATES, help="only these; may be given again"
    )
    parser.add_argument("--fresh", action="store_true", help="install the newest peers anew")
    parser.add_argument("--minutes", type=float, default=60, help="the most that all may take")
    parser.add_argument("--output", type=Path, help="a directory for results, page and plots")
    parser.add_argument(
        "--report", action="store_true", help="measure nothing, write page and plots anew"
    )
    options = parser.parse_args(given)
    unknown = set(options.parts) - PARTS.keys()
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    return options


def measure(options: argparse.Namespace, folder: Path) -> None:
    """Measure the chosen parts, one after the other; a part that fails leaves the others."""
    effort = EFFORTS[options.effort]
    if options.processes:
        effort = effort.__class__(
            processes=options.processes, rounds=effort.rounds, size=effort.size
        )
    Deadline.at = time.monotonic() + 60 * options.minutes
    with sink() as address:
        run = Run(effort=effort, candidates=options.candidate or list(CANDIDATES), sink=address)
        for name in options.parts or PARTS:
            load, began = os.getloadavg()[0], time.monotonic()
            with told(name):
                try:
                    data = PARTS[name].measure(run)
                except MeasureError as error:
                    say(f"{name} is not measured: {error}")
                    continue
            found = results.result(name, effort, data, load, began)
            say(f"written: {results.save(folder, found)}")


def main(given: Sequence[str] | None = None) -> int:
    """Measure and write; say which bars are met."""
    options = arguments(given)
    forget_environment()
    if options.fresh:
        forget_environments()
    output = options.output
    if output is None and options.effort != "full" and not options.report:
        output = CACHE / options.effort
    folder = results.COMMITTED if output is None else output / "results"
    if not options.report:
        measure(options, folder)
    parts, found = list(PARTS.values()), results.load(folder)
    page = report.PAGE if output is None else output / report.PAGE.name
    plots = report.PLOTS if output is None else output / report.PLOTS.name
    report.write(parts, found, page, plots)
    print(report.page(parts, found) if output is not None else report.bars(parts, found))
    say(f"written: {page}, {plots}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
