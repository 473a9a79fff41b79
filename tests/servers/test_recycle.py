"""The sidecar ends a worker that hangs, the server starts another, and nobody had to look."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.servers.blockers import GRANIAN, Pair, Timing, ask, dial
from tests.servers.harness import eventually
from tests.servers.sidecar import hanging, sidecar

if TYPE_CHECKING:
    from pathlib import Path

TIMES = {"after": 1, "grace": 1, "pause": 5, "jitter": 0.1}


@pytest.mark.slow
def test_a_stuck_worker_is_replaced_and_the_other_is_left_alone(tmp_path: Path) -> None:
    timing = Timing(stuck=1.0, megamiss=0.4)
    flags = [text for name, s in TIMES.items() for text in (f"--recycle-{name}", str(s))]
    with (
        hanging(GRANIAN, tmp_path, **timing.options()) as running,
        sidecar(tmp_path, "--recycle-stuck", *flags, death_shown=1) as watcher,
    ):
        pair = Pair(running, watcher, timing)
        pair.reach_both()
        stuck, healthy = pair.clients
        pair.block(pair.clients[stuck], "gil")
        watcher.wait(lambda: watcher.stuck(), timing.stuck + 2.5, "stuck")

        def both_serve() -> bool:
            pids = {w["pid"] for w in pair.reporting()}
            return len(pids) == 2 and stuck not in pids and healthy in pids

        watcher.wait(both_serve, 20, "another worker in its place")
        watcher.wait(lambda: watcher.get("/healthz")[0] == 200, 5, "health")
        served = set()

        def new_one_serves() -> bool:
            with dial(running.url) as client:
                served.add(ask(client, "pid"))
            return len(served) == 2

        eventually(new_one_serves, 15, "both workers answer")
        assert ask(pair.clients[healthy], "pid") == healthy
        log = watcher.log.read_text()
        assert f"process {stuck} is stuck and gets SIGTERM" in log
        assert f"process {healthy}" not in log
        pair.close()
