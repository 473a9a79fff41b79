"""The sidecar's own look: what it concludes from one, and what it does not."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import signal
import socket
import time
from typing import TYPE_CHECKING

import pytest

from tests.exporter.traffic import asynchronous
from tests.store.support import start_worker
from tests.watchdog.support import NOW, FakeTable, beat, make_worker, read
from ws_lifecycle_metrics.config import ExporterConfig
from ws_lifecycle_metrics.exporter.live import Live
from ws_lifecycle_metrics.exporter.watch import Watch
from ws_lifecycle_metrics.store.directory import Directory
from ws_lifecycle_metrics.store.layout import NS
from ws_lifecycle_metrics.store.snapshot import Snapshot, Source
from ws_lifecycle_metrics.watchdog.recycle import Recycler, Timing
from ws_lifecycle_metrics.watchdog.stuck import write_limits
from ws_lifecycle_metrics.watchdog.workers import Health

if TYPE_CHECKING:
    from pathlib import Path

    from tests.exporter.conftest import Serving


class Looks:
    """A watch that recycles, over one worker that hangs; `now` is its clock."""

    def __init__(self, directory: Path) -> None:
        Directory(directory / "test", create=True).close()
        self.config = ExporterConfig(service="test", directory=str(directory), recycle_stuck=True)
        self.now = NOW
        self.sent: list[tuple[int, int]] = []
        self.worker = read(make_worker())
        self.watch = self.another()

    def another(self) -> Watch:
        watch = Watch(self.config, Live(self.config), clock=lambda: self.now)
        table = FakeTable()
        table.run(77)
        watch._recycler = Recycler(
            Timing(after=6, grace=60, jitter=0),
            send=lambda pid, _ticks, number: self.sent.append((pid, number)),
            chance=lambda: 0.0,
            table=table,
        )
        return watch

    def look(self, taken_at: int, watch: Watch | None = None) -> None:
        """Conclude from a snapshot that was taken at this second."""
        now = NOW + taken_at * NS
        hangs = Health("0", 77, self.worker.uuid, now, "loop_blocked")
        snapshot = Snapshot(now, 0.0, [self.worker], {}, False, 0, health=[hangs])
        (watch or self.watch)._look_closer(snapshot)


@pytest.fixture
def looks(tmp_path: Path) -> Looks:
    return Looks(tmp_path)


def test_a_judgement_from_before_a_pause_ends_nobody(looks):
    for second in range(5):
        looks.now = NOW + second * NS
        looks.look(second)
    # Only this process stood still for a while, and the worker may be well by now.
    for seconds, taken_at in ((7, 5), (11, 6)):
        looks.now = NOW + seconds * NS
        looks.look(taken_at)
    assert looks.sent == []
    looks.now = NOW + 12 * NS
    looks.look(12)
    assert looks.sent == [(77, signal.SIGTERM)]


def test_of_two_sidecars_the_second_sends_nothing_and_says_so_once(looks, caplog):
    caplog.set_level(logging.INFO)
    second = looks.another()
    for moment in (0, 7):
        looks.now = NOW + moment * NS
        for watch in (looks.watch, second):
            looks.look(moment, watch)
    assert looks.sent == [(77, signal.SIGTERM)]
    assert caplog.messages == [
        "another sidecar ends this service's stuck workers; this one stands by",
        "process 77 is stuck and gets SIGTERM",
    ]


def test_the_sidecar_that_stood_by_takes_over_and_says_so(looks, caplog):
    caplog.set_level(logging.INFO)
    second = looks.another()
    looks.look(0)
    looks.look(0, second)
    asyncio.run(looks.watch.aclose())
    looks.look(0, second)
    looks.look(0, second)
    assert caplog.messages[1:] == ["from now on this sidecar ends stuck workers"]


@pytest.mark.parametrize("installed", [True, False], ids=["installed", "missing"])
def test_who_asks_for_py_spy_where_there_is_none_is_told(installed, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    if installed:
        (tmp_path / "py-spy").touch(mode=0o755)
    config = ExporterConfig(service="test", directory=str(tmp_path), py_spy=True)
    Watch(config, Live(config))
    missing = "--py-spy: there is no such program; pip install py-spy"
    assert caplog.messages == ([] if installed else [missing])


def test_a_process_in_which_another_service_is_well_is_shared(tmp_path):
    place = {"service": "test", "directory": str(tmp_path)}
    config = ExporterConfig(recycle_stuck=True, **place)
    recycler = Watch(config, Live(config))._recycler
    assert recycler is not None
    (tmp_path / "test").mkdir()
    (tmp_path / "others").mkdir(mode=0o777)
    (tmp_path / "others").chmod(0o777)  # in which anybody may have written
    own, other = (start_worker(tmp_path, service=name) for name in ("test", "beside"))
    try:
        write_limits(other.segment.header, other.config)
        beat(own, time.monotonic_ns())
        beat(other, time.monotonic_ns())
        assert recycler._shared(os.getpid())
        assert not recycler._shared(os.getpid() + 1)
        beat(other, time.monotonic_ns() - 60 * NS)
        assert not recycler._shared(os.getpid())
    finally:
        own.close()
        other.close()


@asynchronous
async def test_a_look_that_fails_leaves_no_judgement_behind(serving: Serving, monkeypatch) -> None:
    def fails(_: Source) -> Snapshot:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("ws_lifecycle_metrics.exporter.watch.PERIOD", 0.01)
    async with serving() as (exporter, http):
        monkeypatch.setattr(Source, "take", fails)
        exporter._live.health = [Health("0", 77, 1, NOW, "loop_blocked", "its event loop")]
        async with asyncio.timeout(10):
            while (await http.get("/healthz")).status_code != 200:
                pass


@asynchronous
async def test_systemd_hears_of_the_start_of_each_good_look_and_of_the_end(
    serving: Serving, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr("ws_lifecycle_metrics.exporter.watch.PERIOD", 0.01)
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    hangs = Health("0", 77, 1, NOW, "loop_blocked", "its event loop")

    def told() -> str:
        return listener.recv(200).decode()

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(10)
        async with serving():
            first = [await asyncio.to_thread(told) for _ in range(2)]
            snapshot = Snapshot(NOW, 0.0, [], {}, False, 0, health=[hangs])
            monkeypatch.setattr(Source, "take", lambda _: snapshot)
            while (failing := await asyncio.to_thread(told)) == first[1]:
                pass
        while told() != "STOPPING=1":
            pass
    assert first == ["READY=1", "WATCHDOG=1\nSTATUS=0 workers beat"]
    assert failing == "STATUS=worker 0 (pid 77): its event loop"
