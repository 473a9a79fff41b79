"""The watch from inside: beats, stalls, detections; and that it leaves no trace."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import threading
import time
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio

from tests.store.support import ROOT, environment, eventually, place, python, run, start_worker
from tests.store.traffic import fork
from tests.watchdog.support import NOW, add_record, beat, make_worker, read, state
from ws_lifecycle_metrics import Config, LifecycleMiddleware, StuckEvent, catalog
from ws_lifecycle_metrics.store import layout as at
from ws_lifecycle_metrics.store.directory import Directory
from ws_lifecycle_metrics.store.layout import NS, ROUTE_BLOCK, WORKER_BLOCK
from ws_lifecycle_metrics.store.snapshot import Snapshot, Source
from ws_lifecycle_metrics.store.totals import Totals, add_segment
from ws_lifecycle_metrics.store.workers import existing
from ws_lifecycle_metrics.watchdog import guard, reports, sidefile
from ws_lifecycle_metrics.watchdog.faults import Timer
from ws_lifecycle_metrics.watchdog.gauges import worker_gauges
from ws_lifecycle_metrics.watchdog.guard import Watch, server_stops
from ws_lifecycle_metrics.watchdog.heartbeat import INTERVAL, Heartbeat
from ws_lifecycle_metrics.watchdog.scan import Scanner

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

STALLS = WORKER_BLOCK[catalog.LOOP_STALLS.name].offsets
SECONDS = WORKER_BLOCK[catalog.LOOP_STALL_SECONDS.name].offsets
DETECTIONS = ROUTE_BLOCK[catalog.STUCK_DETECTIONS.name].offsets
STEP = round(INTERVAL * NS)


def stalls(worker: Any) -> dict[str, int]:
    return {severity: worker.words[word] for (severity,), word in STALLS.items()}


def test_each_stall_is_counted_once_by_the_worst_that_it_reached():
    worker, now = make_worker(), NOW
    heart = Heartbeat(worker, lambda _: None, clock=lambda: now)
    heart.beat()
    for late in (0.0, 0.19, 0.2, 0.99, 1.0, 4.9, 5.0, 60.0):
        now += STEP + round(late * NS)
        heart.beat()
        assert worker.segment.header[at.LOOP_LAG] == round(late * NS)
    assert stalls(worker) == {"miss": 2, "megamiss": 2, "stuck": 2}
    assert worker.words[SECONDS["stuck",]] == 65 * NS
    assert worker.segment.header[at.BEATS] == 9
    totals: Totals = {}
    add_segment(totals, read(worker))
    *counts, total = totals[catalog.LOOP_DELAY.name, ("0",)]
    assert (sum(counts), total) == (8, round(72.28 * NS))


def test_a_loop_that_was_stopped_meanwhile_was_not_stalled():
    worker, now = make_worker(), NOW
    heart = Heartbeat(worker, lambda _: None, clock=lambda: now)
    heart.beat()
    heart.rest()
    now += 3600 * NS
    heart.beat()
    assert stalls(worker) == {"miss": 0, "megamiss": 0, "stuck": 0}


class Loop:
    """A loop whose timers a test runs."""

    def __init__(self) -> None:
        self.timers: list[Any] = []

    def call_later(self, _delay: float, *call: Any, context: object) -> None:
        self.timers.append(call)

    def call_soon_threadsafe(self, *_: object) -> None: ...

    def turn(self) -> None:
        """Run what is due."""
        due, self.timers = self.timers, []
        for function, *arguments in due:
            function(*arguments)


def test_a_loop_that_another_took_the_place_of_beats_no_more():
    worker, first, second, now = make_worker(), Loop(), Loop(), NOW
    heart = Heartbeat(worker, lambda _: None, clock=lambda: now)
    heart.start(first)
    first.turn()
    now += 60 * NS  # in which neither of them ran
    heart.start(second)
    assert stalls(worker) == {"miss": 0, "megamiss": 0, "stuck": 0}
    beats = worker.segment.header[at.BEATS]
    first.turn()
    assert (worker.segment.header[at.BEATS], first.timers) == (beats, [])
    second.turn()
    assert (worker.segment.header[at.BEATS], len(second.timers)) == (beats + 1, 1)


def test_a_loop_that_comes_back_has_one_beat_and_one_look_for_the_end(monkeypatch):
    monkeypatch.setattr("ws_lifecycle_metrics.watchdog.guard.server_stops", lambda: False)
    worker, first, second = make_worker(), Loop(), Loop()
    watch = Watch(worker)
    for loop in (first, second, first, second):
        watch.begin(loop)
    beats = worker.segment.header[at.BEATS]
    assert len(second.timers) == 4
    second.turn()
    assert (worker.segment.header[at.BEATS], len(second.timers)) == (beats + 1, 2)


class Server:
    """A server that handles SIGTERM by a method of its own, as uvicorn and gunicorn's workers."""

    def __init__(self, **flags: object) -> None:
        self.__dict__.update(flags)

    def handle(self, *_: object) -> None: ...


@contextmanager
def handled_by(server: Server) -> Iterator[None]:
    before = signal.signal(signal.SIGTERM, server.handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize(
    ("flags", "stops"),
    [
        ({"should_exit": False}, False),
        ({"should_exit": True}, True),
        ({"alive": True}, False),
        ({"alive": False}, True),
        ({"should_exit": threading.Event(), "alive": lambda: True}, None),  # another server's
        ({}, None),
    ],
)
def test_whether_a_server_stops_is_seen_by_who_handles_the_signal(flags, stops):
    with handled_by(Server(**flags)):
        assert server_stops() is stops


def test_a_worker_drains_once_the_server_of_its_loop_is_told_to_stop():
    worker, loop, server = make_worker(), Loop(), Server(should_exit=False)
    with handled_by(server):
        Watch(worker).begin(loop)
        loop.turn()
        assert not worker.draining
        server.should_exit, worker.lifespans = True, 2  # whose of them is told nobody knows
        loop.turn()
        assert not worker.draining
        worker.lifespans = 1
        loop.turn()
        assert worker.draining


def test_a_server_that_shows_nothing_is_not_looked_at():
    loop = Loop()
    with handled_by(Server()):
        Watch(make_worker()).begin(loop)
    assert len(loop.timers) == 1  # the beat


def test_a_beat_that_fails_does_not_look_like_a_hang():
    worker, loop, fails = make_worker(), Loop(), False

    def each(_now: int) -> None:
        if fails:
            raise KeyboardInterrupt

    heart = Heartbeat(worker, each, clock=lambda: NOW)
    heart.start(loop)
    assert worker.segment.header[at.HEARTBEAT_AT] == NOW
    fails = True
    with pytest.raises(KeyboardInterrupt):
        loop.turn()
    assert (worker.segment.header[at.HEARTBEAT_AT], loop.timers) == (0, [])


def test_no_stay_is_detected_twice():
    worker = make_worker()
    record = add_record(worker, state("accepted", "connected"), SENDING=1)
    scanner, words = Scanner(worker), worker.route("/chat").words
    counted = [len(scanner.scan(NOW + second * NS).events) for second in (9, 10, 11, 600)]
    assert counted == [0, 1, 0, 0]
    record[at.SENDING] = 0  # it returned,
    assert not scanner.scan(NOW + 601 * NS).events
    record[at.SENDING], record[at.SENT_AT] = 1, NOW + 602 * NS  # and the next one hangs, too
    assert [len(scanner.scan(NOW + second * NS).events) for second in (611, 612, 613)] == [0, 1, 0]
    assert words[DETECTIONS["send_blocked",]] == 2


async def receive() -> dict[str, Any]:
    return {"type": "websocket.connect"}


async def send(_message: object) -> None: ...


def scope() -> dict[str, Any]:
    return {"type": "websocket", "asgi": {"version": "3.0"}, "path": "/", "headers": []}


def quick(base: Path, **options: Any) -> Config:
    options = {"stuck_handshake": 0.2, "stuck_loop_blocked": 0.6, "stall_megamiss": 0.3} | options
    return Config(service="test", directory=str(base), **options)


def snapshot(config: Config) -> Snapshot:
    return Source(config).take()


async def until(holds: Any) -> None:
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110  # what it waits for happens in shared memory
            await asyncio.sleep(0.02)


async def waits_for_ever(_scope: Any, _receive: Any, _send: Any) -> None:
    await asyncio.Event().wait()


def test_a_stuck_connection_is_told_at_once_with_its_line(tmp_path, caplog):
    told: list[StuckEvent] = []
    config = quick(tmp_path, on_stuck=told.append)
    app = LifecycleMiddleware(waits_for_ever, config=config)

    async def main() -> None:
        task = asyncio.create_task(app(scope(), receive, send))
        await until(lambda: told)
        await until(lambda: snapshot(config).connections()[0].where)
        [connection] = snapshot(config).connections()
        assert (connection.stuck, connection.where) == ("handshake", told[0].where)
        task.cancel()
        await asyncio.wait([task])
        assert snapshot(config).connections() == []

    asyncio.run(main())
    [event] = told
    assert (event.reason, event.connection, event.http_route) == ("handshake", 1, "other")
    assert event.seconds >= 0.2
    assert event.where.endswith(":waits_for_ever")
    record = next(r for r in caplog.records if "is stuck" in r.message)
    assert (record.stuck_reason, record.where) == ("handshake", event.where)


@pytest.mark.parametrize("error", [RuntimeError("the user's"), SystemExit(3)], ids=repr)
def test_a_callback_that_raises_is_called_for_each_of_them(tmp_path, caplog, error):
    told: list[int | None] = []

    def raises(event: StuckEvent) -> None:
        told.append(event.connection)
        raise error

    app = LifecycleMiddleware(waits_for_ever, config=quick(tmp_path, on_stuck=raises))

    async def main() -> None:
        tasks = [asyncio.create_task(app(scope(), receive, send)) for _ in range(3)]
        await until(lambda: len(told) == 3)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

    asyncio.run(main())
    assert sorted(told) == [1, 2, 3]
    assert "Config.on_stuck raised" in caplog.text


def test_a_callback_that_does_not_return_keeps_the_watchdog_from_nothing(tmp_path, caplog):
    called, over = threading.Event(), threading.Event()

    def blocks(_event: object) -> None:
        called.set()
        over.wait(20)

    app = LifecycleMiddleware(waits_for_ever, config=quick(tmp_path, on_stuck=blocks))

    async def main() -> None:
        task = asyncio.create_task(app(scope(), receive, send))
        await until(called.is_set)
        deadline = time.monotonic() + 20
        while "is stuck: loop_blocked" not in caplog.text and time.monotonic() < deadline:
            time.sleep(0.01)
        over.set()
        task.cancel()
        await asyncio.wait([task])

    asyncio.run(main())
    assert "is stuck: loop_blocked" in caplog.text


def test_a_blocked_loop_is_told_while_it_is_blocked(tmp_path):
    told: list[StuckEvent] = []
    config = quick(tmp_path, on_stuck=told.append)
    app = LifecycleMiddleware(waits_for_ever, config=config)

    async def main() -> None:
        task = asyncio.create_task(app(scope(), receive, send))
        await asyncio.sleep(0.05)
        deadline = time.monotonic() + 20
        while not told and time.monotonic() < deadline:
            time.sleep(0.01)
        task.cancel()
        await asyncio.wait([task])

    asyncio.run(main())
    blocked = next(event for event in told if event.connection is None)
    assert blocked.reason == "loop_blocked"
    assert "test_inside.py:" in blocked.where


def test_each_stall_is_told_once_a_level(caplog):
    worker = make_worker(stall_megamiss=1.0, stuck_loop_blocked=5.0)
    watch = Watch(worker)
    for start in (NOW, NOW + 100 * NS):
        beat(worker, start)
        for second in (0, 1, 2, 5, 6, 60):
            watch.inspect(start + second * NS)
    told = [(record.levelname, record.stuck_seconds) for record in caplog.records]
    assert told == [("WARNING", 1.0), ("ERROR", 5.0)] * 2


class Quiet:
    """A watch that counts how often it is looked at."""

    def __init__(self) -> None:
        self.looks = self.ends = 0
        self.is_over = False

    def inspect(self, _now: int) -> None:
        self.looks += 1
        if self.looks == 1:
            raise RuntimeError("the thread outlives it")

    def was_looked_at(self, times: int) -> bool:
        return self.looks >= times

    def over(self) -> bool:
        return self.is_over

    def end(self) -> None:
        self.ends += 1


def test_the_thread_looks_once_when_it_is_woken_and_ends_with_its_last_watch(monkeypatch, caplog):
    monkeypatch.setattr(guard, "PERIOD", 3600.0)
    guard._Thread.forget()  # as a forked child: another test's goes its own way
    for _ in range(2):
        quiet = Quiet()
        for _ in range(2):
            guard._Thread.watch(quiet)  # the second time for a new loop
        thread = guard._Thread._thread
        assert thread is not None
        for looks in (1, 2):
            guard._Thread.wake()
            eventually(partial(quiet.was_looked_at, looks))
        quiet.is_over = True
        guard._Thread.wake()
        thread.join(10)
        assert (quiet.looks, quiet.ends, guard._Thread._thread) == (3, 1, None)
    assert "the thread outlives it" in caplog.text


def test_without_room_for_a_thread_the_loop_beats_and_the_next_one_tries_again(monkeypatch):
    def full(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    guard._Thread.forget()
    worker, loop = make_worker(), Loop()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", full)
        Watch(worker).begin(loop)
    loop.turn()
    assert worker.segment.header[at.BEATS] == 2
    assert guard._Thread._thread is None
    Watch(make_worker()).begin(Loop())
    assert guard._Thread._thread is not None


def test_a_new_loop_in_the_same_thread_beats_and_a_stopped_one_is_not_missed(tmp_path):
    config = quick(tmp_path, stuck_loop_blocked=0.5)

    async def passes(_scope: Any, _receive: Any, _send: Any) -> None: ...

    app = LifecycleMiddleware(passes, config=config)

    async def main() -> int:
        await app({"type": "http"}, receive, send)
        worker = existing(config)
        assert worker is not None
        before = worker.segment.header[at.BEATS]
        await until(lambda: worker.segment.header[at.BEATS] > before + 1)
        return int(worker.segment.header[at.BEATS])

    first = asyncio.run(main())
    deadline = time.monotonic() + 10
    while snapshot(config).health[0].beat_age is not None and time.monotonic() < deadline:
        time.sleep(0.02)
    [health] = snapshot(config).health
    assert (health.reason, health.beat_age) == (None, None)
    assert worker_gauges([health], 0)[catalog.WORKERS_REPORTING.name] == {(): 0}
    assert asyncio.run(main()) > first


def test_on_trio_there_is_a_beat_as_well(tmp_path):
    config = quick(tmp_path)

    async def passes(_scope: Any, _receive: Any, _send: Any) -> None: ...

    app = LifecycleMiddleware(passes, config=config)

    async def main() -> None:
        await app({"type": "http"}, receive, send)
        worker = existing(config)
        assert worker is not None
        with trio.fail_after(10):
            while worker.segment.header[at.BEATS] < 3:  # noqa: ASYNC110  # see `until`
                await trio.sleep(0.02)

    trio.run(main)
    assert snapshot(config).health[0].beat_age is None


def test_a_removed_file_is_noticed_and_the_connections_go_on(tmp_path, monkeypatch):
    monkeypatch.setattr("ws_lifecycle_metrics.watchdog.guard.LOOK_FOR_FILE_EVERY", 0)
    monkeypatch.setattr("ws_lifecycle_metrics.watchdog.heartbeat.INTERVAL", 0.02)
    config = quick(tmp_path, stuck_handshake=100.0, faulthandler=True)
    app = LifecycleMiddleware(waits_for_ever, config=config)
    closed = fault_files()

    async def main() -> None:
        task = asyncio.create_task(app(scope(), receive, send))
        await asyncio.sleep(0.05)
        [before] = snapshot(config).connections()
        for name in os.listdir(tmp_path / "test"):
            os.unlink(tmp_path / "test" / name)
        assert snapshot(config).connections() == []
        await until(lambda: snapshot(config).connections())
        [after] = snapshot(config).connections()
        assert (after.id, after.state) == (before.id, before.state)
        assert after.age >= before.age
        worker = existing(config)
        assert worker is not None
        await until(lambda: worker.segment.header[at.BEATS] > 3)
        assert existing(config) is worker  # the file was removed once
        assert fault_files() == closed + 1
        worker.watch.end()
        task.cancel()
        await asyncio.wait([task])
        assert snapshot(config).connections() == []

    asyncio.run(main())


def test_of_a_worker_whose_file_was_removed_nothing_beats_on(tmp_path, monkeypatch):
    monkeypatch.setattr("ws_lifecycle_metrics.watchdog.guard.LOOK_FOR_FILE_EVERY", 0)
    worker, loop = start_worker(tmp_path), Loop()
    worker.watch = Watch(worker)
    worker.watch.begin(loop)
    (place(tmp_path) / worker.segment.name).unlink()
    loop.turn()  # a new one begins within the old one's beat, which is not over
    new = existing(worker.config)
    assert new is not None
    beats = new.segment.header[at.BEATS]
    loop.turn()
    assert (new.segment.header[at.BEATS], len(loop.timers)) == (beats + 1, 1)


def test_what_is_stuck_in_closing_is_cancelled_only_where_it_was_asked_for(tmp_path):
    async def ignores(_scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while (await receive())["type"] != "websocket.disconnect":
            pass
        await asyncio.Event().wait()

    async def main(config: Config) -> bool:
        inbox = iter([{"type": "websocket.connect"}, {"type": "websocket.disconnect", "code": 1}])

        async def deliver() -> dict[str, Any]:
            return next(inbox)

        app = LifecycleMiddleware(ignores, config=config)
        task = asyncio.create_task(app(scope(), deliver, send))
        await asyncio.wait([task], timeout=1.6)
        ended = task.done()
        task.cancel()
        await asyncio.wait([task])
        return ended

    off = quick(tmp_path / "off", stuck_closing=0.2)
    on = quick(tmp_path / "on", stuck_closing=0.2, cancel_stuck_closing=True)
    assert not asyncio.run(main(off))
    assert asyncio.run(main(on))


LOOPS = """
import asyncio, gc, sys, threading, warnings
warnings.simplefilter("error")
from ws_lifecycle_metrics import Config, LifecycleMiddleware

async def passes(scope, receive, send): ...
app = LifecycleMiddleware(passes, config=Config(service="test", directory=sys.argv[1]))

async def main():
    await app({"type": "http"}, None, None)
    await asyncio.sleep(0.3)

async def short():
    await app({"type": "http"}, None, None)

for _ in range(3):
    asyncio.run(short(), debug=True)
loop = asyncio.new_event_loop()
loop.run_until_complete(main())
loop.close()
thread = threading.Thread(target=lambda: asyncio.run(main()))
thread.start()
thread.join(20)
if sys.argv[2] == "uvloop":
    import uvloop
    uvloop.run(main())
gc.collect()
print("fine", asyncio.all_tasks(loop) or "")
"""


@pytest.mark.parametrize("kind", ["asyncio", "uvloop"])
def test_no_loop_is_kept_from_closing_and_nothing_warns(tmp_path, kind):
    assert run(LOOPS, tmp_path, kind).strip() == "fine"
    # The process has ended as it should: its numbers are in the archive, nothing else is left.
    left = {name.partition(".")[2] for name in os.listdir(tmp_path / "test")}
    assert not left & {"segment", "stacks", "faults"}


def test_no_more_events_wait_for_a_callable_than_there_is_room_for(monkeypatch):
    monkeypatch.setattr(reports, "MOST_WAITING", 3)
    goes_on, calls = threading.Event(), []

    def blocks(event: StuckEvent) -> None:
        goes_on.wait(20)
        calls.append(event.seconds)

    def events(first: int) -> list[StuckEvent]:
        return [StuckEvent("handshake", first + number, "0") for number in range(9)]

    caller = reports._Caller()
    caller.call(blocks, events(0))
    caller.call(blocks, events(100))  # one of the first is being told, or none
    goes_on.set()
    eventually(lambda: len(calls) >= 3 and caller._calls.empty())
    caller.call(blocks, events(200)[:1])
    eventually(lambda: 200 in calls)
    assert calls in ([0, 1, 2, 200], [0, 1, 2, 100, 200])


FORKS = """
import asyncio, os, sys
from ws_lifecycle_metrics import Config, LifecycleMiddleware
from ws_lifecycle_metrics.store.snapshot import Source

config = Config(service="test", directory=sys.argv[1])
async def passes(scope, receive, send): ...
app = LifecycleMiddleware(passes, config=config)

async def main():
    await app({"type": "http"}, None, None)
    await asyncio.sleep(0.7)
    return [h.beat_age is not None for h in Source(config).take().health if h.pid == os.getpid()]

async def parent():
    await app({"type": "http"}, None, None)

asyncio.run(parent())
child = os.fork()
if not child:
    found = asyncio.run(main())
    os._exit(0 if found == [True] else 1)
_, status = os.waitpid(child, 0)
print(os.waitstatus_to_exitcode(status))
"""


def test_a_forked_child_has_its_own_beat(tmp_path):
    assert run(FORKS, tmp_path).strip() == "0"


def test_only_who_armed_the_timer_last_takes_it_away(tmp_path):
    options = {"stuck_loop_blocked": 0.5, "stall_megamiss": 0.3}
    workers = [start_worker(tmp_path, faulthandler=True, **options) for _ in range(2)]
    timers = [Timer(worker) for worker in workers]
    stacks = place(tmp_path) / workers[1].segment.name.replace(".segment", ".faults")
    try:
        for timer in timers:
            timer.rearm()
        timers[0].rest()  # its loop has ended, the other hangs
        eventually(lambda: stacks.stat().st_size > 0)
    finally:
        for timer, worker in zip(timers, workers, strict=True):
            timer.close()
            worker.close()


def test_a_worker_without_a_file_has_no_timer(tmp_path):
    alone, taken = make_worker(faulthandler=True), start_worker(tmp_path, faulthandler=True)
    (place(tmp_path) / taken.segment.name).with_suffix(".faults").touch()  # by whomever
    for worker in (alone, taken):
        timer = Timer(worker)
        timer.rearm()
        assert Timer._armed is not timer
        timer.close()
    taken.close()


def test_nobody_arms_the_timer_during_a_fork_and_in_the_child_somebody_may(tmp_path):
    worker = start_worker(tmp_path, faulthandler=True)
    timer = Timer(worker)
    Timer.before_fork()
    timer.rearm()  # as another thread's loop, which beats meanwhile
    assert Timer._armed is None
    Timer.after_fork()
    timer.rearm()
    child = fork(lambda: os._exit(Timer._forks or Timer._armed is not None))
    assert os.waitpid(child, 0)[1] == 0
    assert Timer._armed is timer
    timer.close()
    worker.close()


def test_a_timer_is_taken_away_before_its_file_is_closed(tmp_path):
    worker = start_worker(tmp_path, faulthandler=True)
    timer = Timer(worker)
    for end in (timer.rest, timer.close):
        timer.rearm()
        assert Timer._armed is timer
        end()
        assert Timer._armed is None
    worker.close()


def test_of_a_loop_that_does_not_beat_no_stack_is_written(tmp_path):
    worker = start_worker(tmp_path, faulthandler=True)
    watch = Watch(worker)
    watch._faults.rearm()
    watch.inspect(NOW)  # its loop has ended, or has not begun
    assert Timer._armed is None
    watch.end()
    worker.close()


def test_stacks_that_cannot_be_written_are_done_without(tmp_path):
    worker = start_worker(tmp_path, stall_megamiss=1.0)
    watch = Watch(worker)
    shutil.rmtree(place(tmp_path))
    beat(worker, NOW)
    watch.inspect(NOW + 2 * NS)
    assert not watch._changed
    worker.close()


def fault_files() -> int:
    """How many of faulthandler's files this process has open."""
    found = 0
    for name in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):
            found += ".faults" in os.readlink(f"/proc/self/fd/{name}")
    return found


def test_what_faulthandler_wrote_to_is_closed_when_a_thread_has_ended(tmp_path):
    async def passes(_scope: Any, _receive: Any, _send: Any) -> None: ...

    app = LifecycleMiddleware(passes, config=quick(tmp_path, faulthandler=True))
    before, during = fault_files(), 0

    async def main() -> None:
        nonlocal during
        await app({"type": "http"}, receive, send)
        during = fault_files()

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    thread.join(20)
    assert during == before + 1
    eventually(lambda: fault_files() == before)


FORKED_HANG = """
import asyncio, os, sys, time
from ws_lifecycle_metrics import Config, LifecycleMiddleware

told = []
options = {"stuck_loop_blocked": 0.5, "stall_megamiss": 0.3, "on_stuck": told.append}
config = Config(service="test", directory=sys.argv[1], **options)
async def passes(scope, receive, send): ...
app = LifecycleMiddleware(passes, config=config)

async def main(hangs):
    await app({"type": "http"}, None, None)
    deadline = time.monotonic() + 20
    while hangs and not told and time.monotonic() < deadline:
        time.sleep(0.01)

async def parent():
    await main(False)
    child = os.fork()  # while the thread of the parent watches
    if not child:
        asyncio._set_running_loop(None)
        asyncio.run(main(True))
        os._exit(0 if told else 1)
    return os.waitpid(child, 0)[1]

print(os.waitstatus_to_exitcode(asyncio.run(parent())))
"""


def test_in_a_forked_child_a_thread_of_its_own_watches(tmp_path):
    assert run(FORKED_HANG, tmp_path).strip() == "0"


FORKED_TIMER = """
import asyncio, faulthandler, os, sys, time
from pathlib import Path
from ws_lifecycle_metrics import Config, LifecycleMiddleware

options = {"stuck_loop_blocked": 0.5, "stall_megamiss": 0.3, "faulthandler": True}
config = Config(service="test", directory=sys.argv[1], **options)
async def passes(scope, receive, send): ...
app = LifecycleMiddleware(passes, config=config)

def hangs(done):
    deadline = time.monotonic() + 20
    while not done() and time.monotonic() < deadline:
        time.sleep(0.01)
    return not done()

async def main():
    await app({"type": "http"}, None, None)
    [faults] = Path(sys.argv[1]).glob("test/*.faults")
    child = os.fork()
    if not child:  # as the end of Python does; asyncio's, from here on, hangs by itself on 3.14
        faulthandler.cancel_dump_traceback_later()
        os._exit(0)
    print("not told" if hangs(lambda: "in main" in faults.read_text()) else "told")
    ended = os.waitpid(child, os.WNOHANG)[0] or not os.kill(child, 9)
    print("ended" if ended == child else "hangs")

asyncio.run(main())
"""


def test_a_fork_while_faulthandler_waits_keeps_the_parents_timer_and_lets_the_child_end(tmp_path):
    assert run(FORKED_TIMER, tmp_path).splitlines() == ["told", "ended"]


def test_what_faulthandler_writes_is_bounded_and_so_is_what_is_read_of_it(tmp_path):
    worker = start_worker(tmp_path, faulthandler=True)
    path = place(tmp_path) / worker.segment.name.replace(".segment", ".faults")
    timer = Timer(worker)
    try:
        path.write_text("a" * sidefile.MOST_BYTES + "\nbeyond")
        with Directory(path.parent) as directory:
            assert len(sidefile.read(directory, worker.segment.name).faults) == 1
        timer.rearm()
        assert path.stat().st_size == 0
    finally:
        timer.close()
        worker.close()


EXITS = """
import asyncio, sys, time
from ws_lifecycle_metrics import Config, LifecycleMiddleware

options = {"stuck_loop_blocked": 1.0, "faulthandler_exit": True}  # which stacks come before
config = Config(service="test", directory=sys.argv[1], **options)
async def passes(scope, receive, send): ...
app = LifecycleMiddleware(passes, config=config)

async def main(hang):
    await app({"type": "http"}, None, None)
    await asyncio.sleep(0.3)
    time.sleep(hang)

asyncio.run(main(0))
time.sleep(2.0)  # no loop runs, so none is stuck
print("fine", flush=True)
asyncio.run(main(20))
print("not reached", flush=True)
"""


@pytest.mark.slow
def test_faulthandler_ends_a_process_that_hangs_and_none_whose_loop_has_ended(tmp_path):
    done = subprocess.run(
        python(EXITS, tmp_path),
        env=environment(),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "fine\n")
    faults = next((tmp_path / "test").glob("*.faults")).read_text()
    assert "in main" in faults
