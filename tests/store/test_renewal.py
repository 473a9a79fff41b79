"""Who takes the place of a worker: its file was removed, could not be had, or its thread ended."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.store.support import config, eventually, place, take, value
from tests.store.traffic import SCOPE
from ws_lifecycle_metrics import LifecycleMiddleware, catalog
from ws_lifecycle_metrics.store import archive
from ws_lifecycle_metrics.store import layout as at
from ws_lifecycle_metrics.store.directory import Directory
from ws_lifecycle_metrics.store.workers import existing


@pytest.fixture(autouse=True)
def each_beat_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ws_lifecycle_metrics.watchdog.guard.LOOK_FOR_FILE_EVERY", 0)


async def receive() -> dict[str, Any]:
    return {"type": "websocket.connect"}


async def send(_message: object) -> None: ...


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110  # what it waits for happens in shared memory
            await asyncio.sleep(0.02)


def start(base: Path, left: asyncio.Event, **options: object) -> asyncio.Task[None]:
    """Open a connection that the application closes when it is told to."""

    async def accepts(_scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await left.wait()
        await send({"type": "websocket.close"})

    app = LifecycleMiddleware(accepts, config=config(base, **options))
    return asyncio.ensure_future(app({**SCOPE, "path": "/"}, receive, send))


def counted(base: Path, metric: Any, *labels: str) -> float:
    return value(take(base), metric, *labels)


@pytest.mark.parametrize("archived", [True, False], ids=["archived", "no room for the archive"])
def test_who_had_no_directory_is_shared_once_there_is_one(tmp_path, archived):
    folder = place(tmp_path)
    folder.write_text("in its place")

    async def main() -> None:
        left = asyncio.Event()
        early = start(tmp_path, left)
        await until(lambda: counted(tmp_path, catalog.HANDSHAKES, "other", "accepted"))
        [before] = take(tmp_path).connections()
        worker = existing(config(tmp_path))
        assert worker is not None
        await until(lambda: worker.segment.header[at.BEATS] > 2)
        assert not worker.segment.shared
        folder.unlink()
        if not archived:
            (folder / ".archive.json").mkdir(parents=True)
            folder.chmod(0o700)
        await until(lambda: [*folder.glob("*.segment")])
        await until(lambda: take(tmp_path).health[0].beat_age is not None)
        [after] = take(tmp_path).connections()
        assert (after.id, after.state) == (before.id, before.state)
        late = start(tmp_path, left)
        left.set()
        await asyncio.gather(early, late)

    asyncio.run(main())
    assert counted(tmp_path, catalog.HANDSHAKES, "other", "accepted") == 2
    assert counted(tmp_path, catalog.CLOSES) == 2
    assert counted(tmp_path, catalog.LOST_CONNECTIONS) == 0
    assert counted(tmp_path, catalog.INTERNAL_ERRORS) == 0
    assert counted(tmp_path, catalog.STORAGE_DEGRADED) == (not archived)


def test_what_lies_beside_a_removed_file_goes_with_it(tmp_path):
    async def main() -> None:
        left = asyncio.Event()
        task = start(tmp_path, left, faulthandler=True)
        await until(lambda: [*place(tmp_path).glob("*.faults")])
        [segment] = place(tmp_path).glob("*.segment")
        segment.unlink()
        await until(lambda: take(tmp_path).connections())
        assert not [*segment.parent.glob(f"{segment.stem}.*")]
        left.set()
        await task

    asyncio.run(main())


def test_a_thread_that_ended_is_no_worker_and_no_dead_one(tmp_path):
    async def main() -> None:
        left = asyncio.Event()
        left.set()
        await start(tmp_path, left)

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    thread.join()
    eventually(lambda: not take(tmp_path).workers)
    with Directory(place(tmp_path)) as directory:
        eventually(lambda: not directory.segments())  # the watchdog may be at it just now
        found = archive.load(directory)
    assert (found.generation, dict(found.deaths)) == (1, {})
    assert counted(tmp_path, catalog.CLOSES) == 1
