"""Which worker is stuck, judged from outside, with a clock and a process table of the test's."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from tests.watchdog.support import (
    NOW,
    TICKS,
    FakeTable,
    add_record,
    beat,
    look,
    make_worker,
    read,
    reasons,
    state,
)
from ws_lifecycle_metrics.store import layout as at
from ws_lifecycle_metrics.store.layout import NS, Status
from ws_lifecycle_metrics.watchdog.gauges import stuck_connections, stuck_records, worker_gauges
from ws_lifecycle_metrics.watchdog.kernel import Kernel, Trend, View
from ws_lifecycle_metrics.watchdog.processes import ProcessTable, Sockets
from ws_lifecycle_metrics.watchdog.workers import Judge

OPEN = state("accepted", "connected")


@pytest.fixture
def table() -> FakeTable:
    return FakeTable()


@pytest.fixture
def worker():
    made = make_worker()
    beat(made, NOW)
    return made


def test_a_loop_without_a_beat_is_blocked_from_the_threshold_on(worker, table):
    table.run(77)
    judge = Judge(table=table)
    assert reasons(judge, NOW + 5 * NS - 1, read(worker)) == [None]
    assert reasons(judge, NOW + 5 * NS, read(worker)) == ["loop_blocked"]
    beat(worker, NOW + 9 * NS)
    assert reasons(judge, NOW + 9 * NS, read(worker)) == [None]


def test_where_nothing_beats_nobody_knows(table):
    table.run(77)
    [health] = look(Judge(table=table), NOW + 10**6 * NS, read(make_worker()))
    assert (health.reason, health.beat_age) == (None, None)


def test_a_stopped_process_is_told_at_once_and_a_traced_one_is_not(worker, table):
    judge = Judge(table=table)
    for letter, expected in {"T": "stopped", "t": None, "S": None, "D": None, "R": None}.items():
        table.run(77, letter)
        assert reasons(judge, NOW, read(worker)) == [expected], letter


def test_without_a_process_table_the_beat_alone_speaks(worker, tmp_path):
    judge = Judge(table=ProcessTable(tmp_path / "nothing"))
    assert reasons(judge, NOW, read(worker)) == [None]
    assert reasons(judge, NOW + 6 * NS, read(worker)) == ["loop_blocked"]


@pytest.mark.parametrize("word", [at.PID_NAMESPACE, at.BOOT_LOW, at.START_TICKS])
def test_a_process_of_another_world_or_a_reused_pid_says_nothing(worker, table, word):
    table.run(77, "T")
    assert look(Judge(table=table), NOW, read(worker))[0].here
    worker.segment.header[word] += 1
    [health] = look(Judge(table=table), NOW, read(worker))
    assert (health.reason, health.here) == (None, False)


@pytest.mark.parametrize(
    ("run", "wait", "activity", "reason"),
    [
        (0.9, 0.1, "busy", "loop_blocked"),
        (0.3, 0.7, "busy", "loop_blocked"),
        (0.0, 0.0, "blocked", "loop_blocked"),
        (0.1, 0.9, "busy", "loop_blocked"),  # with nine others on its processor
        (0.01, 0.97, "starved", None),
    ],
)
def test_what_a_silent_loop_does(worker, table, run, wait, activity, reason):
    table.run(77)
    table.used[77] = (0, 0)
    judge = Judge(table=table)
    assert reasons(judge, NOW, read(worker)) == [None]
    table.used[77] = (int(run * 6 * NS), int(wait * 6 * NS))
    [health] = look(judge, NOW + 6 * NS, read(worker))
    assert health.reason == reason
    assert health.activity == (activity if reason else "")
    # One that never gets a processor does not serve either, only later.
    table.used[77] = (int(run * 15 * NS), int(wait * 15 * NS))
    assert reasons(judge, NOW + 15 * NS, read(worker)) == ["loop_blocked"]


def test_in_another_time_namespace_only_the_movement_of_the_beat_counts(worker, table):
    worker.segment.header[at.TIME_NAMESPACE] += 1
    worker.segment.header[at.HEARTBEAT_AT] = 5 * NS  # its clock has only just begun
    judge = Judge(table=table)
    assert reasons(judge, NOW, read(worker)) == [None]
    assert reasons(judge, NOW + 4 * NS, read(worker)) == [None]
    [health] = look(judge, NOW + 5 * NS, read(worker))
    assert (health.reason, health.clock) == ("loop_blocked", 10 * NS)
    beat(worker, 11 * NS)
    assert reasons(judge, NOW + 6 * NS, read(worker)) == [None]


def test_after_a_pause_of_its_own_the_sidecar_waits_for_a_beat(worker, table):
    judge = Judge(table=table, period=1.0)
    assert reasons(judge, NOW + NS, read(worker)) == [None]
    # The whole machine stood still for an hour, and the sidecar woke first.
    wake = NOW + 3600 * NS
    assert reasons(judge, wake, read(worker)) == [None]
    beat(worker, wake + NS)
    assert reasons(judge, wake + NS, read(worker)) == [None]
    assert [reasons(judge, wake + s * NS, read(worker))[0] for s in range(2, 7)][-1] == (
        "loop_blocked"
    )


def test_a_beat_from_the_future_is_no_failure(worker, table):
    worker.segment.header[at.HEARTBEAT_AT] = NOW + 3600 * NS
    [health] = look(Judge(table=table), NOW, read(worker))
    assert (health.reason, health.beat_age) == (None, 0.0)


def test_a_death_is_told_until_another_takes_the_place(worker, table):
    judge = Judge(table=table, death_shown=15)
    assert reasons(judge, NOW, read(worker)) == [None]
    assert reasons(judge, NOW + NS, read(worker, alive=False)) == ["dead"]
    # Somebody has folded the segment.
    [health] = look(judge, NOW + 300 * NS, deaths=1)
    assert health.reason == "dead"
    assert health.failing
    new = make_worker()
    beat(new, NOW + 301 * NS)
    assert reasons(judge, NOW + 301 * NS, read(new), deaths=1) == [None]


def test_a_death_that_was_made_good_at_once_is_still_seen_by_a_scrape(worker, table):
    judge = Judge(table=table, death_shown=15)
    look(judge, NOW, read(worker))
    new = make_worker()
    beat(new, NOW + NS)
    healths = look(judge, NOW + NS, read(new), deaths=1)
    assert [h.reason for h in healths] == [None, "dead"]
    assert (healths[1].pid, healths[1].uuid) == (77, read(worker).uuid)  # although it was folded
    assert not any(h.failing for h in healths)
    gauges = worker_gauges(healths, wall=0.0)
    assert gauges["asgi.worker.stuck"]["0", "dead"] == 1
    assert reasons(judge, NOW + 20 * NS, read(new), deaths=1) == ["loop_blocked"]


@pytest.mark.parametrize("end", ["closed", "draining"])
def test_an_end_that_was_announced_is_no_death(worker, table, end):
    header = worker.segment.header
    if end == "closed":
        header[at.STATUS] = Status.CLOSED
    else:
        header[at.DRAINING_SINCE] = NOW
    judge = Judge(table=table)
    look(judge, NOW, read(worker))
    assert look(judge, NOW, read(worker, alive=False)) == []


def test_deaths_before_the_sidecar_started_are_history(table):
    assert look(Judge(table=table), NOW, deaths=3) == []


def test_clients_that_nobody_accepts_starve(worker, table):
    table.run(77)
    table.found[77] = Sockets(listening=1, accept_queue=7, connections=1)
    clock = [NOW]
    kernel = Kernel(table, clock=lambda: clock[0])
    judge = Judge(table=table)
    found = []
    for second in range(9):
        clock[0] = NOW + second * NS
        beat(worker, clock[0])
        kernel.look([read(worker)])
        [health] = judge.look([read(worker)], _none, clock[0], kernel.views)
        found.append(health.reason)
    assert found[:5] == [None] * 5
    assert found[-1] == "accept_starved"
    table.found[77] = Sockets(listening=1, connections=1)
    clock[0] += 30 * NS
    beat(worker, clock[0])
    kernel.look([read(worker)])
    assert judge.look([read(worker)], _none, clock[0], kernel.views)[0].reason is None


_none: Counter[int] = Counter()


@pytest.mark.parametrize(
    ("sockets", "shared", "ghosts"),
    [
        (Sockets(listening=1, connections=1), False, 2),
        (Sockets(listening=1, connections=3), False, 0),
        (Sockets(listening=1, connections=1), True, 0),  # HTTP/2
        (Sockets(listening=0, connections=0), False, 0),  # a UNIX socket
    ],
    ids=["two without a socket", "all have one", "many on one socket", "no TCP at all"],
)
def test_ghosts_are_scopes_without_a_socket(table, sockets, shared, ghosts):
    worker = make_worker(stuck_ghost=20.0)
    for _ in range(3):
        add_record(worker, OPEN)
    worker.segment.header[at.SHARED_SOCKETS] = shared
    table.run(77)
    table.found[77] = sockets
    clock = [NOW]
    kernel = Kernel(table, clock=lambda: clock[0])
    judge = Judge(table=table)
    for second in range(0, 40, 2):
        clock[0] = NOW + second * NS
        beat(worker, clock[0])
        kernel.look([read(worker)])
        [health] = judge.look([read(worker)], _none, clock[0], kernel.views)
        if second < 20:
            assert health.ghosts == 0
    assert health.ghosts == ghosts


@pytest.mark.parametrize(
    ("readings", "until", "now", "limit", "lasted"),
    [
        (3, 9, 9, 9, True),
        (3, 9, 9, 10, False),
        (3, 9, 10, 10, True),  # the next reading is not waited for,
        (3, 9, 60, 11, False),  # and none that never came is made up
        (2, 60, 60, 5, False),
    ],
)
def test_what_lasts_was_seen_often_enough_and_of_late(readings, until, now, limit, lasted):
    trend = Trend(0, until * NS, readings, 1)
    assert trend.lasted(limit * NS, now * NS) == lasted


@pytest.mark.parametrize(
    ("took", "waiting", "pause"),
    [(0.0, 0, 1.0), (0.05, 0, 5.0), (0.5, 0, 15.0), (0.05, 1, 1.0), (0.2, 1, 2.0)],
)
def test_the_more_a_reading_costs_the_less_often_it_is_made(worker, took, waiting, pause):
    clock, read_at = [NOW], []

    class Costly(FakeTable):
        def sockets(self, pids: list[int]) -> dict[int, Sockets]:
            read_at.append(clock[0])
            clock[0] += round(took * NS)
            return super().sockets(pids)

    table = Costly(found={77: Sockets(listening=1, accept_queue=waiting)})
    kernel = Kernel(table, clock=lambda: clock[0])
    kernel.look([read(worker)])
    ready = NOW + round((took + pause) * NS)
    for clock[0] in (ready - 1, ready):
        kernel.look([read(worker)])
    assert read_at == [NOW, ready]


def test_where_one_loop_of_a_process_shares_sockets_no_connection_of_any_is_missed(table):
    loops = [make_worker(slot) for slot in range(2)]
    for loop in loops:
        add_record(loop, OPEN)
    table.found[77] = Sockets(listening=1)
    assert _missing(table, loops) == 2
    loops[0].segment.header[at.SHARED_SOCKETS] = 1
    assert _missing(table, loops) is None
    assert _missing(table, loops[::-1]) is None


def _missing(table, loops):
    kernel = Kernel(table, clock=lambda: NOW)
    kernel.look([read(loop) for loop in loops])
    missing = kernel.views[77].missing
    return None if missing is None else missing.least


def test_what_was_so_before_a_pause_of_the_sidecar_and_after_it_did_not_last(worker, table):
    table.run(77)
    table.found[77] = Sockets(listening=1, accept_queue=1)
    clock = [NOW]
    kernel = Kernel(table, clock=lambda: clock[0])
    for second in (0, 1, 2, 61, 62):
        clock[0] = NOW + second * NS
        kernel.look([read(worker)])
    trend = kernel.views[77].queue
    assert trend is not None
    assert (trend.since, trend.readings) == (NOW + 61 * NS, 2)


def test_the_process_table_reads_what_linux_writes(tmp_path):
    (tmp_path / "77").mkdir()
    fields = "S 1 77 77 0 -1 0 0 0 0 0 5 5 0 0 20 0 1 0 4711 0 0"
    (tmp_path / "77" / "stat").write_text(f"77 (a) b) {fields}")
    process = ProcessTable(tmp_path).process(77)
    assert process is not None
    assert (process.state, process.parent, process.start_ticks) == ("S", 1, TICKS)
    for broken in ("", "77 (x", "77 (x) S", "no name"):
        (tmp_path / "77" / "stat").write_text(broken)
        assert ProcessTable(tmp_path).process(77) is None


def test_a_ghost_of_a_process_is_one_of_one_of_its_loops(table):
    loops = [make_worker(slot, stuck_ghost=20.0) for slot in range(3)]
    for loop, connections in zip(loops, (1, 3, 3), strict=True):
        for _ in range(connections):
            add_record(loop, OPEN)
    table.run(77)
    table.found[77] = Sockets(listening=1, connections=5)
    clock = [NOW]
    kernel, judge = Kernel(table, clock=lambda: clock[0]), Judge(table=table)
    for second in range(0, 40, 2):
        clock[0] = NOW + second * NS
        for loop in loops:
            beat(loop, clock[0])
        segments = [read(loop) for loop in loops]
        kernel.look(segments)
        healths = judge.look(segments, _none, clock[0], kernel.views)
    assert [health.ghosts for health in healths] == [1, 1, 0]
    gauge = stuck_connections(segments, {health.uuid: health for health in healths}, ["/chat"])
    assert gauge["/chat", "ghost"] == 2


def test_the_most_silent_connections_are_the_ghosts_unless_they_are_stuck_as_it_is(worker, table):
    for late in range(4):
        add_record(worker, OPEN, NOW + late)
    blocked = add_record(worker, OPEN, NOW - 20 * NS, SENDING=1)
    table.run(77)
    beat(worker, NOW)
    [health] = look(Judge(table=table), NOW, read(worker))
    found = stuck_records(read(worker), replace(health, ghosts=3))
    assert {record[at.SERIAL]: why for _, record, why in found} == {
        blocked[at.SERIAL]: "send_blocked",
        1: "ghost",
        2: "ghost",
    }


def test_the_gauges_of_a_worker_are_what_was_seen_of_it(worker, table):
    table.run(77)
    beat(worker, NOW)
    states = {"established": 3, "close_wait": 2}
    sockets = Sockets(listening=1, accept_queue=4, connections=5, states=states)
    views = {77: View(sockets)}
    [health] = Judge(table=table).look([read(worker)], _none, NOW + 2 * NS, views)
    gauges = worker_gauges([health], wall=1000.0)
    assert gauges["asgi.worker.heartbeat_timestamp"] == {("0",): 998.0}
    assert gauges["asgi.worker.accept_queue"] == {("0",): 4}
    assert gauges["asgi.worker.sockets"] == {
        ("0", state): number for state, number in states.items()
    }
    assert gauges["asgi.workers_reporting"] == {(): 1}


def test_the_process_table_counts_the_sockets_of_a_process(tmp_path):
    rows = (
        ("00000000:0000 0A 00000000:0000001B", 100),  # it listens, 27 wait
        ("0100007F:9C40 01 00000000:00000000", 101),
        ("0100007F:9C41 08 00000000:00000001", 102),
        ("0100007F:9C42 06 00000000:00000000", 0),  # of nobody any more
        ("0100007F:9C43 01 00000000:00000000", 104),  # another process's
    )
    lines = [
        f" {n}: 0100007F:1F40 {row} 00:00000000 00000000  0  0 {inode} 1"
        for n, (row, inode) in enumerate(rows)
    ]
    process = tmp_path / "77"
    for folder in ("fd", "net", "ns"):
        (process / folder).mkdir(parents=True)
    (process / "ns" / "net").touch()
    (process / "net" / "tcp").write_text("\n".join(["sl local_address", *lines]))
    targets = ("/dev/null", "pipe:[101]", "socket:[100]", "socket:[101]", "socket:[102]")
    for number, target in enumerate(targets):
        (process / "fd" / str(number)).symlink_to(target)
    assert ProcessTable(tmp_path).sockets([77, 78]) == {
        77: Sockets(1, 27, 2, {"established": 1, "close_wait": 1})
    }
