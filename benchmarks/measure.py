"""How everything here is measured: in turn, in one run, in several processes, with the spread.

The machine's noise changes within seconds. What is compared is therefore measured in turn within
one process, and only values of the same round are compared; processes of different candidates
alternate as well.
"""

from __future__ import annotations

import asyncio
import gc
import json
import math
import os
import platform
import re
import select
import statistics
import subprocess
import sys
import sysconfig
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

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


def cpu_ns(work: Callable[[], object]) -> int:
    """Return the CPU time that `work` takes of this thread, in ns, without the collector."""
    gc.collect()
    gc.disable()
    try:
        began = time.thread_time_ns()
        work()
        return time.thread_time_ns() - began
    finally:
        gc.enable()


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


# Processes.

FOREIGN = ("OTEL_", "DD_", "SENTRY_", "LOGFIRE_", "PROMETHEUS_", "WS_LIFECYCLE_")


def forget_environment() -> None:
    """Remove from this process's environment, hence from its children's, what candidates read."""
    for name in [name for name in os.environ if name.startswith(FOREIGN)]:
        del os.environ[name]


class MeasureError(Exception):
    """Something could not be measured; the text says why."""


class Deadline:
    """The end of the time that everything together may take."""

    at = math.inf

    @classmethod
    def left(cls, most: float) -> float:
        """Return how many seconds something may take that takes `most` at most.

        Raises `MeasureError` if there are none.
        """
        left = min(most, cls.at - time.monotonic())
        if left <= 0:
            raise MeasureError("there was no time left")
        return left


def child(
    module: str,
    options: Mapping[str, Any],
    *,
    python: str = sys.executable,
    env: Mapping[str, str] | None = None,
    within: float = 300.0,
) -> Any:
    """Run `python -m module OPTIONS` in a process of its own; return the JSON that it prints.

    Raises `MeasureError`, also when it takes longer than `within` s; it never outlives the call.
    """
    command = [python, "-m", module, json.dumps(dict(options))]
    within = Deadline.left(within)
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=within,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise MeasureError(f"it took longer than {within:.0f} s") from None
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise MeasureError(said[-1] if said else f"it ended with {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])


@contextmanager
def background(
    module: str, options: Mapping[str, Any], env: Mapping[str, str], *, within: float = 60.0
) -> Iterator[int]:
    """Run such a process until the block ends; yield its id once it has said that it is ready.

    It is to end when its standard input does. Raises `MeasureError` if it doesn't get ready.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", module, json.dumps(dict(options))],
        cwd=ROOT,
        env={**os.environ, **env},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        ready, _, _ = select.select([process.stdout], [], [], Deadline.left(within))
        if not ready or not process.stdout.readline():
            raise MeasureError(f"a process of {module} did not start")
        yield process.pid
    finally:
        process.stdin.close()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)
        process.stdout.close()


def alternate(
    names: Sequence[str], times: int, run: Callable[[str], Mapping[str, Samples]]
) -> tuple[dict[str, dict[str, Samples]], dict[str, str]]:
    """Call `run` in turn for each name, `times` times, each in a process of its own.

    Return the samples by name, figure and case, those of all processes in a row, and of the
    names that could not be measured the reasons.
    """
    found: dict[str, dict[str, Samples]] = {}
    missing: dict[str, str] = {}
    for number in range(times):
        for name in turned(names, number):
            if name in missing:
                continue
            try:
                _extend(found.setdefault(name, {}), run(name))
            except MeasureError as error:
                missing[name] = str(error)
                say(f"  {name} is left out: {error}")
    return {name: figures for name, figures in found.items() if figures}, missing


def _extend(found: dict[str, Samples], more: Mapping[str, Samples]) -> None:
    for name, samples in more.items():
        for case, values in samples.items():
            short = [float(f"{value:.5g}") for value in values]
            found.setdefault(name, {}).setdefault(case, []).extend(short)


def answer(work: Callable[[dict[str, Any]], object]) -> None:
    """Be such a process: call `work` with the options, print what it returns."""
    found = work(json.loads(sys.argv[1]))
    print("\n" + json.dumps(found), flush=True)  # libraries may have printed, too


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


def say(text: str) -> None:
    """Tell the user how far it is."""
    sys.stderr.write(f"{datetime.now():%H:%M:%S} {text}\n")
    sys.stderr.flush()


@contextmanager
def told(text: str) -> Iterator[None]:
    """Say what begins, and how long it took."""
    began = time.monotonic()
    say(f"{text} …")
    yield
    say(f"{text}: {time.monotonic() - began:.0f} s")
