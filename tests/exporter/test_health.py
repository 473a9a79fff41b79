"""Health of workers as the sidecar tells it: pages, filters, systemd, py-spy."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import stat
import threading
import time
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from tests.store.support import start_worker
from tests.watchdog.support import beat, make_worker, read
from ws_lifecycle_metrics import catalog
from ws_lifecycle_metrics.cli import cli
from ws_lifecycle_metrics.config import Config, ExporterConfig
from ws_lifecycle_metrics.exporter.health import service_health, worker_health, workers_object
from ws_lifecycle_metrics.exporter.live import Live
from ws_lifecycle_metrics.exporter.notify import notify
from ws_lifecycle_metrics.exporter.overview import connections_object, overview
from ws_lifecycle_metrics.exporter.pages import _filtered, _parsed
from ws_lifecycle_metrics.exporter.spy import Spy
from ws_lifecycle_metrics.exporter.watch import Watch
from ws_lifecycle_metrics.store import layout as at
from ws_lifecycle_metrics.store.connections import Found, Ranked
from ws_lifecycle_metrics.store.directory import Directory
from ws_lifecycle_metrics.store.reader import Contents
from ws_lifecycle_metrics.store.snapshot import Snapshot, Source
from ws_lifecycle_metrics.watchdog.gauges import worker_gauges
from ws_lifecycle_metrics.watchdog.sidefile import Stack, Stacks
from ws_lifecycle_metrics.watchdog.workers import Health

if TYPE_CHECKING:
    from pathlib import Path

WELL = Health("0", 10, 1, 0, beat_age=0.1)
STUCK = Health(
    "1", 11, 2, 0, reason="loop_blocked", detail="its event loop", beat_age=6.0, here=True
)
REPLACED = Health("0", 9, 3, 0, reason="dead", detail="it died", replaced=True)


def test_one_stuck_worker_makes_the_service_unhealthy_and_no_other_worker():
    health = [WELL, STUCK, REPLACED]
    answer = service_health(health)
    assert answer.status == 503
    assert answer.body == b"worker 1 (pid 11): loop_blocked: its event loop\n"
    assert worker_health(health, "0").status == 200
    assert worker_health(health, "1").status == 503
    assert worker_health(health, "2").status == 404
    assert service_health([WELL, REPLACED]).status == 200
    assert service_health([]).status == 200
    folded = replace(REPLACED, pid=0, replaced=False)  # by others, before anybody saw whose it was
    assert service_health([folded]).body == b"worker 0: dead: it died\n"


def test_workers_are_objects_stuck_ones_first_with_their_stacks():
    workers = [read(make_worker(slot)) for slot in (0, 1, 2)]
    for worker, beats in zip(workers, (6, 7, 7), strict=True):
        worker.header[at.BEATS] = beats
    uuids = [worker.uuid for worker in workers]
    told = Stack(("a.py:1:f",), "a.py:1:f")
    stacks = {uuid: Stacks(told, beats) for uuid, beats in zip(uuids, (7, 7, 6), strict=True)}
    like = (WELL, STUCK, replace(STUCK, worker="2"))
    health = [replace(h, uuid=uuid) for h, uuid in zip(like, uuids, strict=True)]
    snapshot = Snapshot(0, 0.0, workers, {}, False, 0, health=health, stacks=stacks)
    found = workers_object("test", snapshot, {uuids[1]: ("seen",)})["workers"]
    assert [w["worker"] for w in found] == ["1", "2", "0"]
    assert (found[0]["where"], found[0]["py_spy"]) == ("a.py:1:f", ["seen"])
    assert [w["beat_age"] for w in found] == [6.0, 6.0, 0.1]
    own = {"uuid", "clock", "replaced", "here", "ended"}  # for the watch, and for nobody else
    assert not own & found[0].keys()
    assert found[1]["stack"] == found[2]["stack"] == []  # of an earlier stall


def test_a_worker_whose_loop_has_ended_in_a_living_process_is_counted_nowhere(tmp_path):
    config = Config(service="test", directory=str(tmp_path))
    serves, silent, ended = (start_worker(tmp_path, service="test") for _ in range(3))
    try:
        beat(serves, time.monotonic_ns())
        for word in (at.DRAINING_SINCE, at.BEATS):
            ended.segment.header[word] = 1
        silent.segment.header[at.DRAINING_SINCE] = 1  # it never had a loop that can beat
        snapshot = Source(config).take()
        workers = workers_object("test", snapshot, {})
        assert [w["worker"] for w in workers["workers"]] == ["0", "1"]
        assert workers["total"] == overview(snapshot).workers == 2
        assert connections_object("test", snapshot, snapshot.ranked(), 0)["workers"] == 2
        assert worker_gauges(snapshot.health, 0)[catalog.WORKERS_REPORTING.name] == {(): 1}
        said = (
            CliRunner()
            .invoke(cli, ["connections", "--service", "test", "--directory", str(tmp_path)])
            .stdout
        )
        assert said == "test: no open connections, 2 workers\n"
        assert worker_health(snapshot.health, "1").status == 200
        assert worker_health(snapshot.health, "2").status == 404
    finally:
        for worker in (serves, silent, ended):
            worker.close()


def found(number: int, **parts: str) -> Found:
    fields = {"worker": "0", "route": "/a", "state": "open", "stuck": ""} | parts
    nothing = memoryview(b"").cast("Q")
    return Found(violations=number, contents=Contents("", nothing, True), record=nothing, **fields)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", {1, 2, 3}),
        ("stuck=any", {2, 3}),
        ("stuck=closing", {3}),
        ("stuck=", {1}),
        ("state=open&worker=1", {2}),
        ("http_route=/b", {3}),
        ("http_route=/b&worker=1", set()),
        ("limit=1", {1, 2, 3}),
    ],
)
def test_connections_are_filtered(query, expected):
    connections = [
        found(1),
        found(2, worker="1", stuck="send_blocked"),
        found(3, route="/b", state="closing", stuck="closing"),
    ]
    snapshot = Snapshot(0, 0.0, [], {}, False, 0)
    _, filters = _parsed(query)
    assert {c.violations for c in _filtered(Ranked(snapshot, connections), filters)} == expected


@pytest.mark.parametrize("abstract", [False, True])
def test_systemd_is_told(monkeypatch, tmp_path, abstract):
    name = f"@ws-lifecycle-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind("\0" + name[1:] if abstract else name)
        listener.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        assert notify("READY=1", "STATUS=fine")
        assert listener.recv(100) == b"READY=1\nSTATUS=fine"


@pytest.mark.parametrize("address", ["", "relative", "/nowhere/at/all", "@nobody-listens-here"])
def test_without_systemd_nobody_is_told(monkeypatch, address):
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    assert not notify("READY=1")


def test_a_systemd_that_does_not_listen_is_not_waited_for(monkeypatch, tmp_path):
    name, told = str(tmp_path / "notify"), []
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as before,
    ):
        listener.bind(name)
        before.setblocking(False)
        with suppress(BlockingIOError):
            while True:
                before.sendto(b"WATCHDOG=1", name)
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        thread = threading.Thread(target=lambda: told.append(notify("READY=1")), daemon=True)
        thread.start()
        thread.join(10)
        assert told == [False]


def program(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_py_spy_looks_once_into_each_stall(tmp_path):
    spy = Spy(program(tmp_path / "spy", f'echo "$@"; echo x >> {tmp_path}/calls'))

    async def main() -> None:
        seen = await spy.look([WELL, STUCK])
        assert seen == {2: ("dump --nonblocking --pid 11",)}
        assert await spy.look([WELL, STUCK]) == seen
        assert await spy.look([WELL]) == {}

    asyncio.run(main())
    assert (tmp_path / "calls").read_text() == "x\n"


def test_py_spy_looks_into_no_process_that_only_has_the_number(tmp_path):
    spy = Spy(program(tmp_path / "spy", 'echo "$@"'))
    assert asyncio.run(spy.look([replace(STUCK, here=False)])) == {}


def test_a_py_spy_that_hangs_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr("ws_lifecycle_metrics.exporter.spy.SECONDS", 0.2)
    spy = Spy(program(tmp_path / "spy", "exec sleep 60"))
    assert asyncio.run(spy.look([STUCK])) == {2: ("py-spy took too long",)}


def test_a_py_spy_that_cannot_be_run_is_said_so(tmp_path):
    assert asyncio.run(Spy(str(tmp_path)).look([STUCK]))[2][0].startswith("py-spy: ")


NEW = Health("0", 12, 4, 0, beat_age=0.1)
HUNG = replace(WELL, reason="loop_blocked", detail="its event loop")
DEAD = replace(WELL, reason="dead", detail="it died 0 s ago", beat_age=None)
IS_STUCK = "worker 0 (pid 10) is stuck: loop_blocked: its event loop"
IS_STUCK_1 = "worker 1 (pid 11) is stuck: loop_blocked: its event loop"
REPLACED_0 = "worker 0 was replaced"
DIED = "worker 0 (pid 10) died without closing"


@pytest.mark.parametrize(
    ("looks", "said"),
    [
        ([[WELL], [HUNG], [HUNG], [WELL]], [IS_STUCK, "worker 0 (pid 10) is no longer stuck"]),
        ([[WELL], [DEAD], [DEAD], [NEW, replace(DEAD, replaced=True)], [NEW]], [DIED, REPLACED_0]),
        ([[WELL], [NEW, replace(DEAD, replaced=True)], [NEW]], [DIED, REPLACED_0]),
        ([[HUNG], [DEAD], [NEW]], [IS_STUCK, DIED, REPLACED_0]),  # after it was shown long enough
        ([[HUNG], [NEW]], [IS_STUCK, "worker 0 (pid 10) has ended"]),
        ([[DEAD], [STUCK]], [DIED, IS_STUCK_1, "worker 0 was not replaced"]),
    ],
    ids=["well again", "replaced", "replaced at once", "replaced late", "ended", "not replaced"],
)
def test_the_log_says_what_became_of_a_worker(tmp_path, caplog, looks, said):
    caplog.set_level("INFO")
    config = ExporterConfig(service="test", directory=str(tmp_path))
    watch = Watch(config, Live(config))
    for health in looks:
        watch._log(health)
    assert caplog.messages == said


def test_of_two_sidecars_one_sends_signals(tmp_path):
    place = {"service": "test", "directory": str(tmp_path)}
    Directory(tmp_path / "test", create=True).close()
    config = ExporterConfig(recycle_stuck=True, **place)

    async def main() -> None:
        first, second = (Watch(config, Live(config)) for _ in range(2))
        assert first._alone()
        assert first._alone()
        assert not second._alone()
        shutil.rmtree(tmp_path / "test")
        assert not first._alone()
        Directory(tmp_path / "test", create=True).close()
        assert second._alone()
        assert not first._alone()
        await second.aclose()
        assert first._alone()
        await first.aclose()

    asyncio.run(main())
