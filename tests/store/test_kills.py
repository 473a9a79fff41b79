"""SIGKILL at any moment: no scrape fails, no total falls, no connection is forgotten."""

from __future__ import annotations

import os
import time

import pytest

from tests.store.support import (
    config,
    counters,
    fallen,
    place,
    running,
    segments,
    start_worker,
    take,
    value,
)
from tests.store.traffic import IDLE
from ws_lifecycle_metrics import catalog
from ws_lifecycle_metrics.store.snapshot import Source
from ws_lifecycle_metrics.telemetry.prometheus import render


def scrape_while(process, base) -> int:
    """Scrape until the process has ended; return how often."""
    source, last, scrapes = Source(config(base)), {}, 0
    deadline = time.monotonic() + 600
    while process.poll() is None:
        assert time.monotonic() < deadline
        snapshot = source.take()
        now = counters(snapshot)
        assert not fallen(last, now)
        assert not snapshot.skipped
        if scrapes % 10 == 0:
            assert b"collector_success 1.0" in render(lambda s=snapshot: s)[0]
        last = now
        scrapes += 1
    assert process.returncode == 0
    return scrapes


@pytest.mark.parametrize(
    "kills", [20, pytest.param(100, marks=pytest.mark.slow)], ids="{} kills".format
)
def test_workers_killed_under_traffic(tmp_path, kills, caplog):
    code = """
        import sys
        from pathlib import Path
        from tests.store.traffic import kill_under_traffic
        kill_under_traffic(Path(sys.argv[1]), int(sys.argv[2]))
    """
    with running(code, tmp_path, kills) as process:
        scrapes = scrape_while(process, tmp_path)
    take(tmp_path)
    assert not segments(tmp_path)
    snapshot = take(tmp_path)
    killed = kills + 1
    assert value(snapshot, catalog.LOST_CONNECTIONS, "/idle") == IDLE * killed
    assert value(snapshot, catalog.HANDSHAKES, "/idle", "accepted") == IDLE * killed
    for route in ("/idle", "/churn"):
        accepted = value(snapshot, catalog.HANDSHAKES, route, "accepted")
        closed = value(snapshot, catalog.CLOSES, route)
        assert accepted == closed + value(snapshot, catalog.LOST_CONNECTIONS, route)
    assert value(snapshot, catalog.CLOSES, "/churn") > 0
    assert value(snapshot, catalog.ACTIVE_CONNECTIONS) == 0
    assert value(snapshot, catalog.INTERNAL_ERRORS) == 0
    assert scrapes > kills
    assert not caplog.records


@pytest.mark.parametrize(
    "kills", [150, pytest.param(3000, marks=pytest.mark.slow)], ids="{} kills".format
)
def test_workers_killed_in_their_first_milliseconds(tmp_path, kills, caplog):
    code = """
        import sys
        from pathlib import Path
        from tests.store.traffic import kill_at_the_start
        kill_at_the_start(Path(sys.argv[1]), int(sys.argv[2]))
    """
    with running(code, tmp_path, kills) as process:
        scrape_while(process, tmp_path)
    drafts = list(place(tmp_path).glob(".*.segment"))
    assert 0 < len(drafts) < kills
    for path in drafts:
        os.utime(path, (0, 0))
    start_worker(tmp_path).close()
    assert not list(place(tmp_path).glob("*.segment"))
    snapshot = take(tmp_path)
    accepted = value(snapshot, catalog.HANDSHAKES, "/churn", "accepted")
    closed = value(snapshot, catalog.CLOSES, "/churn")
    assert accepted == closed + value(snapshot, catalog.LOST_CONNECTIONS, "/churn")
    assert not caplog.records
