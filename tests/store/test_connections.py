"""The list of connections: its order, and what a part of it costs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.store.support import config, open_connection, place, start_worker, take
from tests.watchdog.support import state
from ws_lifecycle_metrics import catalog
from ws_lifecycle_metrics.store import connections, directory
from ws_lifecycle_metrics.store import layout as at
from ws_lifecycle_metrics.store.snapshot import Source
from ws_lifecycle_metrics.watchdog.stuck import write_limits

if TYPE_CHECKING:
    from pathlib import Path

    from ws_lifecycle_metrics.store.snapshot import Snapshot

NUMBER = 300


@pytest.fixture
def snapshot(tmp_path: Path) -> Snapshot:
    """Connections of several routes in all states, none older than another by its serial."""
    worker = start_worker(tmp_path)
    for number in range(NUMBER):
        record = open_connection(worker, f"/{number % 3}")
        record[at.SERIAL] = number
        record[at.STATE_AT] -= (number * 7919 % NUMBER) * at.NS
        if number % 50 == 0:
            record[at.STATE] = at.ORPHANED
    return take(tmp_path)


def test_all_are_listed_the_worst_first(snapshot: Snapshot) -> None:
    found = snapshot.connections()
    order = ["orphaned", "closing", "connecting", "open"]
    ranks = [(not c.stuck, order.index(c.state), -c.in_state, c.id) for c in found]
    assert ranks == sorted(ranks)
    assert {c.id for c in found} == set(range(NUMBER))
    assert [c.state for c in found].count("orphaned") == NUMBER / 50


def test_nothing_is_younger_than_now(tmp_path: Path) -> None:
    record = open_connection(start_worker(tmp_path))
    record[at.OPENED_AT] += 3600 * at.NS  # as half of a word, or where clocks are apart
    [connection] = take(tmp_path).connections()
    assert connection.age == 0


def test_those_of_a_worker_that_hangs_come_after_stuck_ones_and_before_all_others(
    tmp_path: Path,
) -> None:
    workers = {name: start_worker(tmp_path) for name in ("well", "hung")}
    for worker in workers.values():
        write_limits(worker.segment.header, worker.config)
        worker.segment.header[at.HEARTBEAT_AT] = time.monotonic_ns()
    workers["hung"].segment.header[at.HEARTBEAT_AT] -= 3600 * at.NS
    stuck, _, closing = (
        open_connection(workers["well"], f"/{name}") for name in ("stuck", "a", "c")
    )
    open_connection(workers["hung"], "/hung")
    stuck[at.SERIAL] = 1
    stuck[at.SENDING], stuck[at.SENT_AT] = 1, stuck[at.OPENED_AT] - 3600 * at.NS
    closing[at.STATE] = state("closed", "connected")
    found = take(tmp_path).connections()
    assert [c.route for c in found] == ["/stuck", "/hung", "/c", "/a"]
    assert [c.stuck for c in found] == ["send_blocked", "", "", ""]


@pytest.mark.parametrize(("offset", "limit"), [(0, 5), (5, 5), (NUMBER - 2, 5), (0, 0), (999, 5)])
def test_a_part_is_as_the_same_part_of_all(snapshot: Snapshot, offset: int, limit: int) -> None:
    part = snapshot.ranked().page(offset, limit)
    assert part == snapshot.connections()[offset : offset + limit]


def test_only_what_is_shown_is_made(snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    make = connections._connection

    def counting(*given: object) -> object:
        made.append(given)
        return make(*given)

    monkeypatch.setattr(connections, "_connection", counting)
    ranked = snapshot.ranked()
    kept = ranked.keep(lambda found: found.route == "/1")
    assert (len(ranked), len(kept)) == (NUMBER, NUMBER / 3)
    assert [c.route for c in kept.page(limit=4)] == ["/1"] * 4
    assert len(made) == 4


def test_who_reads_makes_no_directory(tmp_path: Path) -> None:
    base = tmp_path / "not" / "yet"
    snapshot = take(base)
    assert (snapshot.workers, snapshot.degraded) == ([], False)
    assert not (tmp_path / "not").exists()


def test_a_directory_that_no_worker_could_make_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def refuse(path: object, mode: int) -> bool:
        asked.append(path)
        return False

    monkeypatch.setattr(directory.os, "access", refuse)  # root may write anywhere
    source = Source(config(tmp_path / "not"))
    families = {family.metric: family.series for family in source.take().families()}
    assert families[catalog.STORAGE_DEGRADED] == {(): 1}
    assert asked == [tmp_path]
    assert not place(tmp_path / "not").exists()
