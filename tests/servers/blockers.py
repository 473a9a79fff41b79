"""Hang one of two workers in every way that is known, and note what the sidecar sees of it.

`python -m tests.servers.blockers` runs them all with the default thresholds and writes the
table of docs/watchdog.md.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from websockets.sync.client import connect

from tests.servers.harness import ROOT, Server, eventually
from tests.servers.sidecar import Sidecar, hanging, sidecar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.servers.harness import Running

APP = "tests.servers.blockers_app:app"
# uvicorn kills a worker that does not answer its own pings for 5 s, and we want to see it hang.
UVICORN = Server(
    name="uvicorn", command=f"uvicorn --workers 2 --timeout-worker-healthcheck 600 {APP}"
)
GRANIAN = Server(
    name="granian",
    command=f"granian --interface asgi --workers 2 --respawn-failed-workers {APP}",
    ready="Started worker-",
)


@dataclass(frozen=True)
class Timing:
    """The thresholds of the workers, in s."""

    stuck: float
    megamiss: float

    def options(self) -> dict[str, object]:
        """The options of `Config`."""
        return {
            "stuck_loop_blocked": self.stuck,
            "stall_megamiss": self.megamiss,
            "faulthandler": "1",
            "death_shown": 3,
        }


FUNCTION = {"regex": "backtrack"}
SHORT = Timing(stuck=1.0, megamiss=0.4)
DEFAULT = Timing(stuck=5.0, megamiss=1.0)
LONGEST = 60.0
"""Seconds after which a blocker ends although nobody releases it."""
LATE = 2.0
"""Seconds after the threshold within which a stuck worker has to be seen."""


@dataclass(frozen=True)
class Seen:
    """What the sidecar saw of one blocker; times in s from its start, or from its end."""

    blocker: str
    reason: str
    after: float
    activity: str
    stack: str
    gone_after: float
    slowest: float
    others_age: float


class Pair:
    """Two workers, a client on each, and the sidecar."""

    def __init__(self, running: Running, watcher: Sidecar, timing: Timing) -> None:
        self.running, self.watcher, self.timing = running, watcher, timing
        self._fifo = running.log.with_name("release")
        os.mkfifo(self._fifo)
        self.clients: dict[int, Any] = {}
        self._stack = ExitStack()

    def reach_both(self) -> None:
        """Open connections until each of two workers has one."""

        def both() -> bool:
            if len(self.clients) < 2:
                with ExitStack() as stack:
                    client = stack.enter_context(dial(self.running.url))
                    pid = ask(client, "pid")
                    if pid not in self.clients:
                        self.clients[pid] = client
                        self._stack.push(stack.pop_all())
            return len(self.clients) == 2

        eventually(both, 20, "a connection to each worker")
        eventually(lambda: len(self.reporting()) == 2, 10, "two workers with a beat")

    def reporting(self) -> list[dict[str, Any]]:
        """Workers that are well and beat."""
        found = self.watcher.json("/workers")["workers"]
        return [w for w in found if w["reason"] is None and w["beat_age"] is not None]

    def close(self) -> None:
        """Leave."""
        with suppress(Exception):
            self._stack.close()

    def hang(self, blocker: str) -> Seen:
        """Hang one worker and see it noticed, and well again."""
        pid = next(iter(self.clients))
        worker = self.watcher.worker_of(pid)
        assert worker is not None
        began = time.monotonic()
        release = self._start(blocker, pid)
        reason = {"SIGSTOP": "stopped", "SIGKILL": "dead"}.get(blocker, "loop_blocked")
        deadline = self.timing.stuck + LATE
        self.watcher.wait(
            lambda: reason in self.watcher.stuck().get(worker, ()), deadline, f"{blocker}: {reason}"
        )
        after = time.monotonic() - began
        if blocker != "SIGKILL":  # whose place may be taken before one asks
            self.watcher.wait(lambda: self.watcher.get(f"/healthz/{worker}")[0] == 503, 10)
            assert self.watcher.get("/healthz")[0] == 503
        activity, stack = self._detail(worker, reason, blocker)
        others_age = self._others_age(worker)
        release()
        released = time.monotonic()
        self.watcher.wait(
            lambda: worker not in self.watcher.stuck(), 20, f"{blocker}: worker {worker} well again"
        )
        gone = time.monotonic() - released
        slowest, self.watcher.slowest = self.watcher.slowest, 0.0
        return Seen(blocker, reason, after, activity, stack, gone, slowest, others_age)

    def _start(self, blocker: str, pid: int) -> Callable[[], None]:
        """Start to block; return what waits for, or brings about, the end."""
        client = self.clients[pid]
        if blocker == "SIGSTOP":
            os.kill(pid, signal.SIGSTOP)
            return lambda: os.kill(pid, signal.SIGCONT)
        if blocker == "SIGKILL":
            del self.clients[pid]
            os.kill(pid, signal.SIGKILL)
            return self._replaced
        return self.block(client, blocker)

    def block(self, client: Any, blocker: str) -> Callable[[], None]:
        """Start to block the worker of `client`; return what ends it and waits for the end."""
        client.send(json.dumps({"do": blocker, "seconds": LONGEST, "until": str(self._fifo)}))

        def release() -> None:
            os.close(os.open(self._fifo, os.O_WRONLY | os.O_NONBLOCK))
            client.recv(timeout=LONGEST)

        return release

    def _replaced(self) -> None:
        """Wait until the server has put another worker in the place of the dead one."""
        eventually(lambda: len(self.reporting()) == 2, 60, "the worker that replaces the dead one")
        for client in self.clients.values():
            assert ask(client, "pid")

    def _detail(self, worker: str, reason: str, blocker: str) -> tuple[str, str]:
        """What kind of hang it is said to be, and by whom the line of the blocker is shown."""
        if reason != "loop_blocked":
            return "", "-"

        def told() -> tuple[str, str] | None:
            found = self.watcher.json("/workers")["workers"]
            own = next(w for w in found if w["worker"] == worker)
            shown = []
            if "blockers_app.py:" in own["where"] and own["where"].endswith(
                f":{FUNCTION.get(blocker, blocker)}"
            ):
                shown.append("thread")
            marks = ("blockers_app.py", f" in {FUNCTION.get(blocker, blocker)}")
            if any(all(mark in line for mark in marks) for line in own["faulthandler"]):
                shown.append("faulthandler")
            return (own["activity"], " and ".join(shown)) if shown else None

        found: tuple[str, str] = self.watcher.wait(told, 10, f"{blocker}: a stack")[0]
        return found

    def _others_age(self, worker: str) -> float:
        """The age of the other worker's latest beat."""
        found = self.watcher.json("/workers")["workers"]
        other = next(w for w in found if w["worker"] != worker)
        assert other["reason"] is None, other
        return float(other["beat_age"])


def dial(url: str) -> Any:
    """A connection as a context manager."""
    return connect(url, proxy=None, open_timeout=5, close_timeout=1, ping_interval=None)


def ask(client: Any, what: str) -> int:
    """Send a wish to the application; return the pid of the worker that answers."""
    client.send(json.dumps({"do": what}))
    return int(client.recv(timeout=10))


@contextmanager
def pair(server: Server, folder: Path, timing: Timing, *arguments: str) -> Iterator[Pair]:
    """Run a server with two workers and the sidecar."""
    with (
        hanging(server, folder, **timing.options()) as running,
        sidecar(folder, *arguments, death_shown=3) as watcher,
    ):
        both = Pair(running, watcher, timing)
        try:
            both.reach_both()
            yield both
        finally:
            both.close()


BLOCKERS = ("sleep", "python", "regex", "gil", "SIGSTOP", "SIGKILL")

WHAT = {
    "sleep": "`time.sleep` in a handler",
    "python": "a loop in pure Python",
    "regex": "a regular expression that backtracks",
    "gil": "a C call that holds the GIL",
    "SIGSTOP": "SIGSTOP",
    "SIGKILL": "SIGKILL",
}
DOCUMENT = ROOT / "docs" / "watchdog.md"
BEGIN, END = "<!-- generated: blockers -->", "<!-- end: blockers -->"
HEAD = (
    "| server | blocker | `asgi_worker_stuck` | told after | activity | stack shown by "
    "| gone after | slowest `/metrics` | other worker's beat |"
)


def hang_in_every_way(server: Server, folder: Path, timing: Timing) -> list[Seen]:
    """Run all blockers on a server."""
    folder.mkdir()
    with pair(server, folder, timing) as both:
        return [both.hang(blocker) for blocker in BLOCKERS]


def _row(server: str, seen: Seen) -> str:
    cells = (
        *(server, WHAT.get(seen.blocker, seen.blocker), seen.reason, f"{seen.after:.1f} s"),
        *(seen.activity or "-", seen.stack or "-", f"{seen.gone_after:.1f} s"),
        *(f"{seen.slowest * 1000:.0f} ms", f"{seen.others_age:.2f} s old"),
    )
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Run everything with the default thresholds and write the table."""
    from tests.servers.test_freeze import see_the_freeze

    argparse.ArgumentParser(
        prog="python -m tests.servers.blockers", description=(__doc__ or "").partition("\n")[0]
    ).parse_args()
    # As an exception, so that the servers and the sidecar end before us.
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    rows = [HEAD, "|---" * HEAD.count(" | ") + "|---|"]
    with TemporaryDirectory() as folder:
        for server in (UVICORN, GRANIAN):
            for seen in hang_in_every_way(server, Path(folder) / server.name, DEFAULT):
                rows.append(_row(server.name, seen))
                print(rows[-1])  # noqa: T201  # it takes minutes
        frozen = Path(folder) / "frozen"
        frozen.mkdir()
        rows.append(_row("granian 2.3.2", see_the_freeze(frozen)))
    text = DOCUMENT.read_text()
    before, after = text.partition(BEGIN)[0], text.partition(END)[2]
    DOCUMENT.write_text("\n".join([before + BEGIN, *rows, END + after]))


if __name__ == "__main__":
    main()
