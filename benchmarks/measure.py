"""How everything here is measured: in turn, in one process, with the spread.

The machine's noise changes within seconds. What is compared is therefore measured in turn within
one process, and only values of the same round are compared.
"""

from __future__ import annotations

import asyncio
import gc
import os
import platform
import re
import statistics
import sysconfig
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TypeVar

ROOT = Path(__file__).resolve().parents[1]
BARE, NOOP, OURS = "bare application", "no-op wrapper", "ws_lifecycle_metrics"
Samples = dict[str, list[float]]
Case = Callable[[], "float | Awaitable[float]"]
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Effort:
    """How much is measured: processes of each candidate, rounds in each, share of the counts.

    `workers` is the number of a host's workers, where there are several.
    """

    processes: int = 5
    rounds: int = 7
    size: float = 1.0
    workers: int = 8

    def count(self, full: int, least: int = 1) -> int:
        """Return the part of a full measurement's count that is to be done."""
        return max(least, round(full * self.size))


EFFORTS = {
    "full": Effort(),
    "quick": Effort(processes=2, rounds=3, size=0.1),
    "tiny": Effort(processes=1, rounds=2, size=0.002, workers=2),
}


# In turn.


def turned(items: Sequence[T], number: int) -> list[T]:
    """Return the items from another one on in each round: none is always behind the same one."""
    start = number % len(items) if items else 0
    return [*items[start:], *items[:start]]


async def interleave(cases: Mapping[str, Case], rounds: int, *, warm: int = 1) -> Samples:
    """Call each case once a round; return its values, those of the first `warm` rounds left out.

    Between the calls the loop goes on, as the beat of a worker is to be neither late nor measured.
    """
    samples: Samples = {name: [] for name in cases}
    for number in range(rounds + warm):
        for name in turned(list(cases), number):
            value = cases[name]()
            if not isinstance(value, float):
                value = await value
            if number >= warm:
                samples[name].append(value)
            await asyncio.sleep(0)
    return samples


@contextmanager
def collector_off() -> Iterator[None]:
    """Measure without the garbage collector, which has done its work before."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def cpu_ns(work: Callable[[], object]) -> int:
    """Return the CPU time that `work` takes of this thread, in ns, without the collector."""
    with collector_off():
        began = time.thread_time_ns()
        work()
        return time.thread_time_ns() - began


# Statistics.


@dataclass(frozen=True, slots=True)
class Figure:
    """A median with its quartiles."""

    median: float
    low: float
    high: float

    def scaled(self, factor: float) -> Figure:
        """Return it in another unit."""
        return Figure(self.median * factor, self.low * factor, self.high * factor)


def figure(values: Sequence[float]) -> Figure:
    """Return the median of some values and their quartiles."""
    if len(values) < 2:
        return Figure(values[0], values[0], values[0])
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return Figure(median, low, high)


def added(values: Sequence[float], beside: Sequence[float]) -> Figure:
    """Return what is above the values of the same rounds."""
    return figure([value - other for value, other in zip(values, beside, strict=True)])


def ratio(values: Sequence[float], beside: Sequence[float]) -> Figure:
    """Return how many times the values of the same rounds."""
    return figure([value / other for value, other in zip(values, beside, strict=True)])


# The machine.


def versions(names: Sequence[str]) -> dict[str, str]:
    """Return the installed versions of distributions; those that are not there are left out."""
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, str]:
    """Say where and when this is measured."""
    options = sysconfig.get_config_var("CONFIG_ARGS") or ""
    with_ = "with" if "--enable-optimizations" in options else "without"
    info = Path("/proc/cpuinfo")
    names = re.findall("model name.*: (.*)", info.read_text() if info.exists() else "")
    return {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "build": f"configured {with_} --enable-optimizations (PGO)",
        "machine": f"{platform.system()}, {os.cpu_count()} × {(*names, platform.processor())[0]}",
        "date": datetime.now(UTC).date().isoformat(),
    }
