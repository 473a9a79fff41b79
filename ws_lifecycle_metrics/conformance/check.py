"""What the verb `check` does: servers side by side, and an application that must be importable."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait

from . import leftovers
from .application import Approach, CannotRun
from .result import ServerRun
from .run import Chosen, Progress, Stopped, not_begun, run_application, run_server, silent
from .script import Scenario
from .text import safe
from .trials import Trial

AT_ONCE = 3
"""Servers that run side by side: most of the time is spent waiting for what never comes."""
IMPORT_SECONDS = 60
IMPORTED = "imported to its end"
"""Printed after the import, which may itself end the process with exit code 0."""
LOOK_SECONDS = 0.25
"""A signal that the kernel gives to another thread ends no wait of the main one: it must look."""


def quiet() -> None:
    """Say nothing of an interrupt."""


def run_servers(
    chosen: Sequence[Chosen],
    scenarios: Sequence[Scenario],
    progress: Progress = silent,
    on_interrupt: Callable[[], object] = quiet,
) -> list[ServerRun]:
    """Judge the servers themselves; `on_interrupt` is called before what runs is waited for."""

    def one_server(one: Chosen, tell: Progress) -> ServerRun:
        return run_server(one, scenarios, tell)

    return _side_by_side(chosen, one_server, progress, on_interrupt)


def try_application(
    chosen: Sequence[Chosen],
    target: str,
    trials: Sequence[Trial],
    approach: Approach,
    progress: Progress = silent,
    on_interrupt: Callable[[], object] = quiet,
) -> list[ServerRun]:
    """Try an application on the servers; raises `CannotRun` if it cannot be imported."""
    check_import(chosen[0].python if chosen else sys.executable, target)

    def one_server(one: Chosen, tell: Progress) -> ServerRun:
        return run_application(one, target, trials, approach, tell)

    return _side_by_side(chosen, one_server, progress, on_interrupt)


def _side_by_side(
    chosen: Sequence[Chosen],
    run: Callable[[Chosen, Progress], ServerRun],
    progress: Progress,
    on_interrupt: Callable[[], object],
) -> list[ServerRun]:
    """Run servers at once; an interrupt ends each after its scenario, with no process left."""
    stopped = threading.Event()

    def tell(server: Chosen, scenario: str) -> None:
        if stopped.is_set():
            raise Stopped
        progress(server, scenario)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        futures = [pool.submit(run, one, tell) for one in chosen]
        try:
            running = set(futures)
            while running:
                ended, running = wait(running, LOOK_SECONDS, FIRST_COMPLETED)
                for future in ended:
                    future.result()  # which raises what broke it
            return [future.result() for future in futures]
        except BaseException as error:
            stopped.set()
            if isinstance(error, KeyboardInterrupt):
                on_interrupt()
            pool.shutdown(cancel_futures=True)
            if not isinstance(error, KeyboardInterrupt):
                raise
            pairs = zip(chosen, futures, strict=True)
            return [not_begun(one) if it.cancelled() else it.result() for one, it in pairs]


def check_import(python: str, target: str) -> None:
    """Import the application in a process of its own; raises `CannotRun` with one line."""
    code = (
        "import os, sys; sys.path.insert(0, '')\n"
        "from ws_lifecycle_metrics.conformance.load import load, unfit\n"
        f"why = unfit(load({target!r}))\n"
        # Past `sys.stdout`, which may be the application's by now.
        f"os.write(1, b'\\n{IMPORTED}\\n'); sys.exit(why)"
    )
    code_of_exit, printed, said = _python(python, code, target)
    if code_of_exit:
        raise CannotRun(f"cannot import {target}: {_reason(said) or f'exit code {code_of_exit}'}")
    if IMPORTED not in printed.splitlines():
        raise CannotRun(f"cannot import {target}: it ends the process, with exit code 0")


def _python(python: str, code: str, target: str) -> tuple[int, str, str]:
    """Run code that imports the target; return its exit code, and what it printed and said."""
    command = (python, "-c", code)
    with leftovers.spawned(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            output = process.communicate(timeout=IMPORT_SECONDS)
        except subprocess.TimeoutExpired:
            raise CannotRun(f"importing {target} took longer than {IMPORT_SECONDS} s") from None
        finally:
            leftovers.forget(process.pid)
            process.kill()
    printed, said = (part.decode(errors="replace") for part in output)
    return process.returncode, printed, said


def _reason(said: str) -> str:
    """Return the line that says why: of a traceback the exception's, else the last one."""
    lines = [line for line in said.splitlines() if line.strip()]
    begins = [number for number, line in enumerate(lines) if line.startswith("Traceback (")]
    # The frames are indented; more lines of the exception's message may follow its first.
    after = (line for line in lines[begins[-1] + 1 :] if not line[0].isspace()) if begins else ()
    return safe(next(iter(after), lines[-1] if lines else "").strip())
