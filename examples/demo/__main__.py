"""`make demo`: real server, real clients, the sidecar, and what Prometheus sees of them.

Runs until Ctrl-C or, where DEMO_SECONDS is set, for that long. Exit codes: 0 fine, 1 a process
of the demo failed, 2 DEMO_SECONDS is not accepted.
"""

from __future__ import annotations

import asyncio
import math
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

from rich.console import Console
from rich.live import Live

from .stack import SERVICE, SIDECAR_PORT, WORKERS, Stack, StackError, Stopped, get
from .traffic import traffic
from .view import Numbers, line, parse, tables

REFRESH, PLAIN_REFRESH = 1.0, 2.0

console = Console(highlight=False, markup=False, emoji=False)


def introduce(stack: Stack) -> None:
    """Say what runs where, and what else to try."""
    console.print(
        f"FastAPI and Strawberry under Granian with {WORKERS} workers. Clients chat, subscribe,\n"
        "vanish and meet two faulty endpoints. The numbers are the sidecar's /metrics.\n"
    )
    taken = "" if stack.sidecar_port == SIDECAR_PORT else f"  ({SIDECAR_PORT} is taken)"
    pages = {
        "metrics": f"{stack.sidecar_url}/metrics{taken}",
        "overview": f"{stack.sidecar_url}/",
        "live state": f"{stack.sidecar_url}/connections",
        "application": f"{stack.url}/graphql",
        "in a shell": f"{program()} connections --service {SERVICE} \\",
        "": f"  --directory {stack.directory}",
    }
    for name, text in pages.items():
        console.print(f"  {name:<12} {text}", soft_wrap=True)
    console.print()


def program() -> str:
    """Return the command line beside this interpreter, as short as it can be typed here."""
    path = Path(sys.executable).with_name("ws-lifecycle-metrics")
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


async def scrape(stack: Stack) -> Numbers:
    """Read the sidecar's /metrics as Prometheus does."""
    stack.check()
    try:
        return parse(await asyncio.to_thread(get, f"{stack.sidecar_url}/metrics"))
    except OSError as error:
        stack.check()  # it may just have ended, which says more
        raise StackError(f"the sidecar does not answer: {error}") from error


async def watch(stack: Stack, stop: asyncio.Event) -> None:
    """Show the numbers until `stop` is set."""
    if not console.is_terminal:
        began = time.monotonic()
        while not stop.is_set():
            passed = time.monotonic() - began
            console.print(f"{passed:4.0f} s: {line(await scrape(stack))}", soft_wrap=True)
            await pause(stop, PLAIN_REFRESH)
        return
    with Live(console=console, auto_refresh=False, transient=True) as live:
        while not stop.is_set():
            live.update(tables(await scrape(stack), console.width), refresh=True)
            await pause(stop, REFRESH)


async def pause(stop: asyncio.Event, seconds: float) -> None:
    """Wait, but no longer than until `stop` is set."""
    with suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)


async def demo(seconds: float) -> int:
    """Run everything for `seconds` s or until a signal; return the exit code."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop.set)
    stack = Stack()
    try:
        await stack.start(stop)
        introduce(stack)
        if math.isfinite(seconds):
            loop.call_later(seconds, stop.set)
        async with traffic(f"ws://{stack.url.partition('://')[2]}"):
            await watch(stack, stop)
            console.print(tables(await scrape(stack), console.width))
    except Stopped:
        pass
    except StackError as error:
        console.print(f"The demo failed: {error}", soft_wrap=True)
        return 1
    finally:
        stack.stop()
    return 0


def main() -> None:
    """Run the demo and exit."""
    text = os.environ.get("DEMO_SECONDS", "")
    try:
        seconds = float(text) if text else math.inf
    except ValueError:
        seconds = math.nan
    if not seconds > 0:  # neither is nan
        print(f"DEMO_SECONDS={text!r}: accepted is a number of seconds above 0", file=sys.stderr)
        sys.exit(2)
    sys.exit(asyncio.run(demo(seconds)))


if __name__ == "__main__":
    main()
