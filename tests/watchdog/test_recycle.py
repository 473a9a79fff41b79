"""Who is ended: a stuck worker of this service and this user, one at a time, nobody else ever."""

from __future__ import annotations

import errno
import logging
import os
import signal
import subprocess
import sys
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.watchdog.support import NOW, TICKS, FakeTable, make_worker, read
from ws_lifecycle_metrics.store import layout as at
from ws_lifecycle_metrics.store.layout import NS
from ws_lifecycle_metrics.store.process import start_ticks
from ws_lifecycle_metrics.watchdog.processes import Process
from ws_lifecycle_metrics.watchdog.recycle import Recycler, Timing, send
from ws_lifecycle_metrics.watchdog.workers import Health

TIMING = Timing(after=3, grace=4, pause=10, jitter=2)


class World:
    """Workers by pid, who of them is stuck, and every signal that was sent."""

    def __init__(self, pids: list[int], timing: Timing = TIMING) -> None:
        self.now = NOW
        self.table = FakeTable()
        self.workers = {pid: read(make_worker(slot, pid)) for slot, pid in enumerate(pids)}
        for pid in pids:
            self.table.run(pid)
        self.reasons: dict[int, str] = {}
        self.sent: list[tuple[int, int, int]] = []  # when, to whom, what
        self.recycler = Recycler(timing, send=self.send, chance=lambda: 0.5, table=self.table)

    def send(self, pid: int, ticks: int, number: int) -> None:
        process = self.table.process(pid)
        assert process is not None
        assert process.start_ticks == ticks == TICKS
        self.sent.append((self.now, pid, number))

    def health(self) -> list[Health]:
        return [
            Health(str(w.header[at.SLOT]), pid, w.uuid, self.now, self.reasons.get(pid))
            for pid, w in self.workers.items()
        ]

    def step(self, seconds: float = 1.0) -> None:
        self.now += round(seconds * NS)
        self.recycler.step(list(self.workers.values()), self.health(), self.now)

    def steps(self, number: int) -> list[tuple[int, int]]:
        for _ in range(number):
            self.step()
        return [(pid, number) for _, pid, number in self.sent]


def test_sigterm_then_sigkill_then_a_pause_then_the_next():
    world = World([100, 200])
    world.reasons = {100: "loop_blocked", 200: "stopped"}
    assert world.steps(3) == []
    assert world.steps(3) == [(100, signal.SIGTERM)]
    assert world.steps(4) == [(100, signal.SIGTERM), (100, signal.SIGKILL)]
    del world.workers[100]
    assert len(world.steps(9)) == 2
    assert world.steps(4)[2:] == [(200, signal.SIGTERM)]


def test_who_recovers_in_the_grace_is_not_killed():
    world = World([100])
    world.reasons = {100: "loop_blocked"}
    assert world.steps(6) == [(100, signal.SIGTERM)]
    world.reasons = {}
    assert world.steps(60) == [(100, signal.SIGTERM)]


def test_who_recovers_for_a_moment_is_given_all_the_time_again():
    world = World([100])
    world.reasons = {100: "loop_blocked"}
    assert world.steps(5) == [(100, signal.SIGTERM)]
    world.reasons = {}
    world.step()
    world.reasons = {100: "loop_blocked"}
    assert world.steps(4) == [(100, signal.SIGTERM)]


@pytest.mark.parametrize("reason", ["loop_blocked", "stopped", "accept_starved"])
def test_a_short_stall_is_nobodys_end(reason):
    world = World([100])
    for _ in range(20):
        world.reasons = {100: reason}
        world.steps(2)
        world.reasons = {}
        world.step()
    assert world.sent == []


def _reused(world: World) -> None:
    world.table.processes[100] = Process("S", 1, TICKS + 1, os.geteuid())


def _foreign(world: World) -> None:
    world.table.processes[100] = Process("S", 1, TICKS, os.geteuid() + 1)


def _gone(world: World) -> None:
    del world.table.processes[100]


def _namespace(world: World) -> None:
    world.workers[100].header[at.PID_NAMESPACE] += 1


def _boot(world: World) -> None:
    world.workers[100].header[at.BOOT_HIGH] += 1


def _other_user(world: World) -> None:
    world.workers[100].header[at.UID] += 1


def _unknown_start(world: World) -> None:
    world.workers[100].header[at.START_TICKS] = 0


def _dead(world: World) -> None:
    world.reasons[100] = "dead"


def _another_service_in_it(world: World) -> None:
    world.recycler._shared = lambda pid: pid == 100


def _init(world: World) -> None:
    world.workers[100].header[at.PID] = 1
    world.table.run(1)


def _ourselves(world: World) -> None:
    world.workers[100].header[at.PID] = os.getpid()
    world.table.run(os.getpid())


def _a_healthy_loop_in_it(world: World) -> None:
    world.workers[101] = read(make_worker(1, 100))


@pytest.mark.parametrize(
    "change",
    [
        *(_reused, _foreign, _gone, _namespace, _boot, _other_user, _unknown_start, _dead),
        *(_init, _ourselves, _a_healthy_loop_in_it, _another_service_in_it),
    ],
    ids=lambda change: change.__name__.strip("_").replace("_", " "),
)
def test_never_signalled(change):
    world = World([100])
    world.reasons = {100: "loop_blocked"}
    change(world)
    assert world.steps(60) == []


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (_namespace, "its pid is another container's or machine's; share the process ids"),
        (_init, "pid 1 and the sidecar's own process are never ended"),
        (_reused, "nobody can tell whether the pid is still its process"),
        (_unknown_start, "nobody can tell whether the pid is still its process"),
        (_foreign, "it is another user's"),
        (_a_healthy_loop_in_it, "another loop in its process is well"),
        (_another_service_in_it, "another loop in its process is well"),
    ],
    ids=lambda value: getattr(value, "__name__", "").strip("_").replace("_", " ") or None,
)
def test_the_log_says_once_a_stay_why_a_worker_gets_no_signal(change, why, caplog):
    world = World([100])
    world.reasons = {100: "loop_blocked"}
    change(world)
    world.steps(TIMING.after)
    assert caplog.messages == []
    world.steps(20)
    pid = world.workers[100].header[at.PID]
    said = f"worker 0 (pid {pid}) is stuck and gets no signal: {why}"
    assert caplog.messages == [said]
    world.reasons = {}
    world.step()
    world.reasons = {100: "loop_blocked"}
    world.steps(20)
    assert caplog.messages == [said, said]


def test_a_healthy_worker_of_another_namespace_with_the_same_number_spares_nobody():
    world = World([100])
    world.reasons = {100: "loop_blocked"}
    world.workers[101] = read(make_worker(1, 100))
    world.workers[101].header[at.PID_NAMESPACE] += 1
    assert world.steps(6) == [(100, signal.SIGTERM)]


def test_a_loop_that_has_ended_in_the_same_process_spares_nobody():
    world = World([100])
    world.reasons = {100: "loop_blocked"}
    _a_healthy_loop_in_it(world)
    header = world.workers[101].header
    header[at.DRAINING_SINCE] = header[at.BEATS] = 1
    assert world.steps(6) == [(100, signal.SIGTERM)]


def test_a_pid_that_is_reused_in_the_grace_gets_no_sigkill():
    world = World([100])
    world.reasons = {100: "loop_blocked"}
    assert world.steps(6) == [(100, signal.SIGTERM)]
    _reused(world)
    assert world.steps(60) == [(100, signal.SIGTERM)]


def test_a_signal_that_may_not_be_sent_is_said_and_tried_again_after_the_pause(monkeypatch, caplog):
    world = World([100])
    tried: list[int] = []

    def refuses(*_: int) -> None:
        tried.append(world.now)
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(world.recycler, "_send", refuses)
    world.reasons = {100: "loop_blocked"}
    world.steps(30)
    assert len(tried) > 1
    assert all(b - a > TIMING.pause * NS for a, b in pairwise(tried))
    assert caplog.messages[:2] == [
        "process 100 is stuck and gets SIGTERM",
        "process 100: Operation not permitted",
    ]


@pytest.mark.parametrize("descriptors", [True, False], ids=["pidfd", "no pidfd"])
def test_a_signal_goes_to_the_process_that_started_then_and_to_no_later_one(
    monkeypatch, descriptors
):
    if not descriptors:
        monkeypatch.delattr(signal, "pidfd_send_signal", raising=False)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        ticks = start_ticks(process.pid)
        try:
            with pytest.raises(ProcessLookupError):
                send(process.pid, ticks + 1, signal.SIGKILL)
            send(process.pid, ticks, signal.SIGTERM)
            assert process.wait(20) == -signal.SIGTERM
        finally:
            process.kill()


events = st.lists(
    st.tuples(
        st.sampled_from(["hang", "stop", "recover", "die", "reuse", "wait", "foreign"]),
        st.integers(0, 3),
        st.integers(1, 9),
    ),
    max_size=40,
)


@settings(max_examples=200, deadline=None)
@given(events)
def test_healthy_workers_are_never_signalled_whatever_happens(happened):
    logging.disable(logging.WARNING)
    try:
        _live_through(happened)
    finally:
        logging.disable(logging.NOTSET)


def _happen(world: World, what: str, pid: int) -> None:
    if what in ("hang", "stop") and pid in world.workers:
        world.reasons.setdefault(pid, "loop_blocked" if what == "hang" else "stopped")
    elif what == "recover":
        world.reasons.pop(pid, None)
    elif what == "die":
        world.workers.pop(pid, None)
    elif what in ("reuse", "foreign"):
        ticks, uid = (TICKS + 1, 0) if what == "reuse" else (TICKS, 1)
        world.table.processes[pid] = Process("R", 1, ticks, os.geteuid() + uid)


def _live_through(happened: list[tuple[str, int, int]]) -> None:
    pids = [100, 200, 300, 400]
    world = World(pids)
    stuck_since: dict[int, int] = {}
    for what, index, seconds in happened:
        _happen(world, what, pids[index])
        stuck_since = {p: stuck_since.get(p, world.now + NS) for p in world.reasons}
        before = len(world.sent)
        world.steps(seconds)
        for when, to, _number in world.sent[before:]:
            assert to in world.workers
            assert when - stuck_since[to] >= TIMING.after * NS
            assert world.table.process(to) == Process("S", 1234, TICKS, os.geteuid())
    _assert_one_at_a_time(world.sent)


def _assert_one_at_a_time(sent: list[tuple[int, int, int]]) -> None:
    for (before, first, _), (after, second, number) in pairwise(sent):
        if first == second and number == signal.SIGKILL:
            assert after - before >= TIMING.grace * NS
        else:
            assert after - before >= TIMING.pause * NS
