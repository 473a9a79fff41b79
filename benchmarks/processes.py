"""Processes that measure: bounded in time, run in turn, and never left behind."""

from __future__ import annotations

import json
import math
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from .measure import ROOT, Samples, turned

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
    """Be such a process: call `work` with the options, print what it returns, and end at once.

    What candidates do at the end of a process, such as waiting for an agent, is nobody's matter.
    """
    found = work(json.loads(sys.argv[1]))
    print("\n" + json.dumps(found), flush=True)  # libraries may have printed, too
    os._exit(0)


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
