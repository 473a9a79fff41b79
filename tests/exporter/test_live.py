"""One collection at a time, shared."""

from __future__ import annotations

import asyncio
import os
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from tests.exporter.traffic import asynchronous, open_connections
from ws_lifecycle_metrics.config import ExporterConfig
from ws_lifecycle_metrics.exporter import live
from ws_lifecycle_metrics.exporter.live import CollectionError, Live
from ws_lifecycle_metrics.store.snapshot import Snapshot, Source
from ws_lifecycle_metrics.telemetry import logs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.exporter.conftest import Serving

OPENMETRICS = "application/openmetrics-text"


class Collections:
    """Counts what `Source.take` does; `gate` holds it while it is not set."""

    def __init__(self) -> None:
        self.count = self.at_once = self.most_at_once = 0
        self.begun = threading.Event()
        self.gate = threading.Event()
        self.gate.set()


@pytest.fixture
def collections(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collections]:
    seen = Collections()
    real = Source.take

    def take(source: Source) -> Snapshot:
        seen.count += 1
        seen.at_once += 1
        seen.most_at_once = max(seen.most_at_once, seen.at_once)
        seen.begun.set()
        try:
            assert seen.gate.wait(20)
            return real(source)
        finally:
            seen.at_once -= 1

    monkeypatch.setattr(Source, "take", take)
    yield seen
    seen.gate.set()


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def config(tmp_path: Path) -> ExporterConfig:
    return ExporterConfig(service="test", directory=str(tmp_path))


@asynchronous
async def test_a_collection_serves_everyone_for_a_second(
    config: ExporterConfig, collections: Collections
) -> None:
    clock = Clock()
    held = Live(config, clock)
    first = await held.metrics("")
    clock.now += 0.99
    assert await held.metrics("text/plain") is first
    assert (await held.metrics(OPENMETRICS))[0] != first[0]
    await held.connections()
    await held.overview()
    await held.check()
    assert collections.count == 1
    clock.now += 0.02
    assert await held.metrics("") is not first
    assert collections.count == 2
    held.close()


@asynchronous
async def test_who_comes_during_a_collection_shares_its_result(
    config: ExporterConfig, collections: Collections
) -> None:
    clock = Clock()
    held = Live(config, clock)
    collections.gate.clear()
    waiting = [asyncio.create_task(held.metrics("")) for _ in range(50)]
    assert await asyncio.to_thread(collections.begun.wait, 10)
    clock.now += 5  # a long collection, but it began when they asked
    collections.gate.set()
    results = await asyncio.gather(*waiting)
    assert collections.count == 1
    assert all(result is results[0] for result in results)
    held.close()


@asynchronous
async def test_concurrent_requests_of_all_kinds_collect_once(
    serving: Serving,
    collections: Collections,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(live, "MAX_AGE", 3600.0)
    async with serving() as (_, http):
        paths = ["/metrics", "/connections", "/", "/readyz"] * 15
        answers = await asyncio.gather(*(http.get(path) for path in paths))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.text for answer in answers[::4]}) == 1
    assert collections.count <= 2  # one of them the watch's own, which looks every second
    assert collections.most_at_once == 1


@asynchronous
async def test_a_collection_that_hangs_is_told_and_health_still_answers(
    serving: Serving, collections: Collections
) -> None:
    collections.gate.clear()
    async with serving(collect_timeout=0.3) as (_, http):
        hanging = asyncio.create_task(http.get("/metrics"))
        assert await asyncio.to_thread(collections.begun.wait, 10)
        assert (await http.get("/healthz")).status_code == 200
        assert not hanging.done()
        answers = [await hanging, await http.get("/readyz")]
        collections.gate.set()
        recovered = await http.get("/readyz")
    assert [answer.status_code for answer in answers] == [503, 503]
    assert "takes too long" in answers[0].text
    assert recovered.status_code == 200


@asynchronous
async def test_behind_a_collection_that_hangs_nothing_piles_up(
    tmp_path: Path, collections: Collections
) -> None:
    place = {"service": "test", "directory": str(tmp_path)}
    held = Live(ExporterConfig(collect_timeout=0.05, **place))
    collections.gate.clear()
    for _ in range(3):
        asked = [held.metrics("") for _ in range(50)]
        asked += [held.look(), asyncio.to_thread(held.take)]
        found = await asyncio.gather(*asked, return_exceptions=True)
        assert {type(each) for each in found} == {CollectionError, TimeoutError}
        assert held._thread._work_queue.qsize() <= 2
    collections.gate.set()
    async with asyncio.timeout(10):
        while True:
            with suppress(CollectionError):
                await held.metrics("")
                break
    held.close()


@asynchronous
async def test_nothing_is_collected_on_the_loop(
    config: ExporterConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, threads = Source.take, []

    def take(source: Source) -> Snapshot:
        threads.append(threading.current_thread())
        return real(source)

    monkeypatch.setattr(Source, "take", take)
    held = Live(config)
    await held.look()
    await held.snapshot()
    assert len(threads) == 2
    assert threading.current_thread() not in threads
    held.close()


@asynchronous
async def test_a_failure_is_kept_for_a_second_too(
    config: ExporterConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[int] = []

    def fail(_: Source) -> None:
        tries.append(1)
        raise RuntimeError

    with monkeypatch.context() as patched:
        patched.setattr(Source, "take", fail)
        clock = Clock()
        held = Live(config, clock)
        for _ in range(5):
            with pytest.raises(CollectionError):
                await held.connections()
        assert b"ws_lifecycle_metrics_collector_success 0.0" in (await held.metrics(""))[0]
    assert len(tries) == 1
    clock.now += 1
    assert b"ws_lifecycle_metrics_collector_success 1.0" in (await held.metrics(""))[0]
    held.close()


@asynchronous
async def test_the_log_says_why_a_collection_failed(
    config: ExporterConfig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: Source) -> None:
        raise RuntimeError("why")

    monkeypatch.setattr(Source, "take", fail)
    monkeypatch.setattr(logs, "_limit", logs.RateLimit())
    held = Live(config)
    with pytest.raises(CollectionError, match="the log says why"):
        await held.look()
    assert [str(r.exc_info[1]) for r in caplog.records if r.exc_info] == ["why"]
    held.close()


@asynchronous
async def test_checks_leave_no_descriptor_open(config: ExporterConfig, tmp_path: Path) -> None:
    (tmp_path / "test").mkdir(mode=0o700)
    clock = Clock()
    held = Live(config, clock)
    await held.check()
    before = os.listdir("/proc/self/fd")
    for _ in range(5):
        clock.now += 1
        await held.check()
    assert len(os.listdir("/proc/self/fd")) == len(before)
    held.close()


@asynchronous
async def test_the_metrics_are_those_of_the_workers(config: ExporterConfig, tmp_path: Path) -> None:
    held = Live(config)
    async with open_connections(tmp_path, "/chat/{room}", "/chat/{room}", "/hangs!"):
        body, _ = await held.metrics("")
        found = await held.overview()
    lines = body.decode().splitlines()
    active = 'websocket_server_active_connections{http_route="/chat/{room}",state="open"'
    assert f'{active},subprotocol=""}} 2.0' in lines
    assert found.active == {"connecting": 0, "open": 2, "closing": 1}
    assert found.violations == 1
    assert [(r.route, r.violations) for r in found.routes] == [
        ("/chat/{room}", 0),
        ("/hangs!", 1),
        ("other", 0),
    ]
    held.close()
