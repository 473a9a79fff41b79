"""A segment a thread, a slot a worker: forks, threads and many processes at once."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from tests.servers.harness import eventually
from tests.store.support import (
    config,
    die,
    open_connection,
    place,
    run,
    segments,
    send_unwritten,
    start_worker,
    take,
    value,
)
from tests.store.traffic import application, converse, fork, kill
from ws_lifecycle_metrics import LifecycleMiddleware, catalog
from ws_lifecycle_metrics.store import archive, process, reader
from ws_lifecycle_metrics.store import layout as at
from ws_lifecycle_metrics.store.directory import Directory
from ws_lifecycle_metrics.store.snapshot import Source
from ws_lifecycle_metrics.store.workers import current, existing, local_workers, renew
from ws_lifecycle_metrics.store.writer import Segment


def slots(base) -> list[int]:
    return sorted(worker.header[at.SLOT] for worker in take(base).workers)


def test_a_thread_has_one_worker_and_another_thread_another(tmp_path):
    here = config(tmp_path)
    assert existing(here) is None
    mine = current(here)
    assert current(here) is mine is existing(here)
    others = []
    stop = threading.Event()
    ready = threading.Barrier(9)

    def serve() -> None:
        others.append(current(here))
        ready.wait(30)
        stop.wait(30)

    threads = [threading.Thread(target=serve) for _ in range(8)]
    for thread in threads:
        thread.start()
    ready.wait(30)
    assert len({mine.segment.uuid, *(other.segment.uuid for other in others)}) == 9
    assert slots(tmp_path) == list(range(9))
    stop.set()
    for thread in threads:
        thread.join(30)
    thread = threading.Thread(target=lambda: open_connection(current(here)))
    thread.start()
    thread.join(30)
    assert slots(tmp_path) == [0, 1]
    assert len(local_workers(here)) == 2


def test_threads_that_come_and_go_leave_no_descriptor_and_no_file(tmp_path):
    here = config(tmp_path)

    def session() -> None:
        open_connection(current(here))

    counts = []
    for _ in range(10):
        thread = threading.Thread(target=session)
        thread.start()
        thread.join(30)
        gc.collect()  # a map of a file holds a descriptor
        counts.append((len(os.listdir("/proc/self/fd")), len(segments(tmp_path))))
    assert len(set(counts)) == 1
    assert value(take(tmp_path), catalog.HANDSHAKES, "/chat", "accepted") == 10
    assert value(take(tmp_path), catalog.LOST_CONNECTIONS, "/chat") == 9


def test_the_memory_of_ended_loops_is_freed_without_a_collection_of_garbage(tmp_path):
    app = LifecycleMiddleware(application, config=config(tmp_path))

    def serve() -> None:
        asyncio.run(converse(app, "/chat"))

    def held() -> list[str]:
        with open("/proc/self/maps") as maps:
            return [line for line in maps if str(tmp_path) in line]

    gc.disable()
    try:
        for _ in range(20):
            thread = threading.Thread(target=serve)
            thread.start()
            thread.join(30)
        # The last one ends with the next; the watchdog's thread lets go at its own pace.
        eventually(lambda: len(held()) <= 2, 20, "freed")
    finally:
        gc.enable()
    assert value(take(tmp_path), catalog.HANDSHAKES, "other", "accepted") == 20


def test_services_share_nothing(tmp_path):
    here, there = config(tmp_path / "a"), config(tmp_path / "b")
    assert current(here) is not current(there)
    assert current(here).segment.header[at.SLOT] == current(there).segment.header[at.SLOT] == 0


def test_a_slot_is_the_lowest_that_no_living_worker_has(tmp_path):
    workers = [start_worker(tmp_path) for _ in range(4)]
    assert [worker.segment.header[at.SLOT] for worker in workers] == [0, 1, 2, 3]
    die(workers[1])
    workers[2].close()
    assert slots(tmp_path) == [0, 3]
    workers += [start_worker(tmp_path) for _ in range(3)]
    assert slots(tmp_path) == [0, 1, 2, 3, 4]
    for worker in workers:
        worker.close()


def test_many_processes_that_start_at_once_have_slots_of_their_own(tmp_path):
    printed = run(
        """
        import os, sys
        from pathlib import Path
        from tests.store.support import config, take, at, segments
        from tests.store.traffic import fork, kill
        from ws_lifecycle_metrics.store.workers import current

        base = Path(sys.argv[1])

        def start(gate, ready):
            os.read(gate, 1)
            current(config(base))
            os.write(ready, b".")
            os.read(gate_of_death, 1)

        for round in range(4):
            gate, opened = os.pipe()
            ready, written = os.pipe()
            gate_of_death, _never = os.pipe()
            children = [fork(lambda: start(gate, written)) for _ in range(24)]
            os.write(opened, b"." * 24)
            seen = 0
            while seen < 24:
                seen += len(os.read(ready, 24))
            print(*sorted(worker.header[at.SLOT] for worker in take(base).workers))
            for child in children:
                kill(child)
        take(base)
        print(len(segments(base)))
        """,
        tmp_path,
    )
    *rounds, left = printed.splitlines()
    assert rounds == [" ".join(map(str, range(24)))] * 4
    assert left == "0"


def test_a_forked_child_leaves_its_parents_worker_alone(tmp_path):
    printed = run(
        """
        import os, sys
        from pathlib import Path
        from tests.store.support import config, take, at, catalog, open_connection, value
        from tests.store.traffic import fork, kill
        from ws_lifecycle_metrics.store.workers import current, existing, local_workers

        base = Path(sys.argv[1])
        here = config(base)
        ready, written = os.pipe()
        stay, _never = os.pipe()
        gone = _never

        def child():
            assert existing(here) is None
            assert not local_workers(here)
            open_connection(current(here))
            os.write(written, b".")
            os.close(gone)
            os.read(stay, 1)

        def parent():
            open_connection(current(here))
            pid = fork(child)
            os.write(written, str(pid).encode())
            os.close(gone)
            os.read(stay, 1)

        first = fork(parent)
        text = b""
        while b"." not in text or len(text) < 2:
            text += os.read(ready, 20)
        second = int(text.replace(b".", b""))

        def show():
            snapshot = take(base)
            headers = [worker.header for worker in snapshot.workers]
            print(*sorted((header[at.PID] == second, header[at.SLOT]) for header in headers),
                  value(snapshot, catalog.LOST_CONNECTIONS),
                  value(snapshot, catalog.ACTIVE_CONNECTIONS))
        show()
        kill(first)  # the child lives on, and holds nothing of it
        show()
        os.kill(second, 9)
        stat = Path(f"/proc/{second}/stat")
        while stat.exists() and stat.read_text().split()[2] != "Z":
            os.sched_yield()
        show()
        """,
        tmp_path,
    )
    assert printed.splitlines() == [
        "(False, 0) (True, 1) 0 2",
        "(True, 1) 1 1",
        "2 0",
    ]


@pytest.mark.parametrize("where", ["shared", "unshared"])
def test_what_runs_on_in_a_forked_child_does_not_end_its_parents_conversations(tmp_path, where):
    (tmp_path / "unshared").write_text("no directory")
    printed = run(
        """
        import asyncio, os, sys
        from pathlib import Path
        from tests.store.support import config
        from tests.support import CONNECT, Peer, books, scope, send_text
        from ws_lifecycle_metrics import LifecycleMiddleware

        here = config(Path(sys.argv[1]))
        children = []

        async def waits(scope, receive, send):
            await receive()
            await send({"type": "websocket.accept"})
            await send(send_text("one"))
            await asyncio.Event().wait()

        async def forks(scope, receive, send):
            await receive()
            await send({"type": "websocket.accept"})
            children.append(os.fork())
            if not children[0]:
                await send(send_text("in the child"))
                other.get_coro().close()
                sys.exit("as after an exec that failed")
            os.waitpid(children[0], 0)
            await send({"type": "websocket.close"})

        async def new(application):
            peer = Peer([CONNECT])
            app = LifecycleMiddleware(application, config=here)
            try:
                await app(scope(), peer.receive, peer.send)
            except SystemExit:
                os._exit(0)  # in the child, where asyncio's own end hangs on Python 3.14

        async def main():
            global other
            other = asyncio.create_task(new(waits))
            await asyncio.sleep(0)
            await new(forks)
            for name, *labels in sorted(found := books(here)):
                if name in ("handshakes", "closes", "sent_messages", "active_connections"):
                    print(name, *labels, found[name, *labels])

        asyncio.run(main())
        """,
        tmp_path / where,
    )
    assert printed.splitlines() == [
        "active_connections other  open 1",
        "closes other app 1000 1",
        "handshakes other accepted 2",
        "sent_messages other text 1",
    ]


def test_a_child_that_was_forked_while_its_parents_worker_starts_holds_nothing(
    tmp_path, monkeypatch
):
    stay, end = os.pipe()
    ready, written = os.pipe()
    forked = threading.Event()
    children = []

    def wait() -> None:
        os.close(end)
        os.write(written, b".")
        os.read(stay, 1)

    def fork_child() -> None:
        children.append(fork(wait))
        forked.set()

    thread = threading.Thread(target=fork_child)
    publish = Segment.publish

    def begin_to_fork(segment: Segment) -> None:
        publish(segment)
        thread.start()
        forked.wait(0.5)  # in vain: it is to wait until the worker is known

    monkeypatch.setattr(Segment, "publish", begin_to_fork)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # forking with threads is the point
        worker = current(config(tmp_path))
        thread.join(30)
    open_connection(worker)
    assert os.read(ready, 1)
    die(worker)
    assert value(take(tmp_path), catalog.LOST_CONNECTIONS) == 1
    for fd in (stay, end, ready, written):
        os.close(fd)
    os.waitpid(children[0], 0)


def test_a_child_that_python_did_not_see_forked_keeps_no_worker_alive(tmp_path, monkeypatch):
    monkeypatch.setattr(reader, "SURELY_ALIVE", 0)
    stay, end = os.pipe()
    ready, written = os.pipe()

    def serve() -> None:
        open_connection(current(config(tmp_path)))
        if not ctypes.PyDLL(None).fork():
            os.close(end)  # it ends with the test, however that ends
            os.write(written, b".")
            os.read(stay, 1)
            os._exit(0)
        os.read(stay, 1)

    child = fork(serve)
    assert os.read(ready, 1)
    assert value(take(tmp_path), catalog.ACTIVE_CONNECTIONS) == 1
    kill(child)
    assert value(take(tmp_path), catalog.LOST_CONNECTIONS) == 1
    assert not segments(tmp_path)
    for fd in (stay, end, ready, written):
        os.close(fd)


def test_a_fold_that_fails_leaves_the_worker(tmp_path, monkeypatch):
    def fail(*_: object) -> int:
        raise ArithmeticError

    monkeypatch.setattr(archive, "fold", fail)
    here = config(tmp_path)
    worker = current(here)
    assert current(here) is worker
    assert len(segments(tmp_path)) == 1
    assert value(take(tmp_path), catalog.INTERNAL_ERRORS) == 1


def test_a_worker_whose_end_fails_keeps_no_other_from_ending(tmp_path):
    printed = run(
        """
        import sys, threading
        from pathlib import Path
        from types import SimpleNamespace
        from tests.store.support import config, take
        from ws_lifecycle_metrics.store import workers

        here = config(Path(sys.argv[1]))
        def fail(now):
            raise RuntimeError
        workers.current(here).noted[1] = SimpleNamespace(publish=fail)
        started = threading.Event()
        def serve():
            workers.current(here)
            started.set()
            threading.Event().wait()
        threading.Thread(target=serve, daemon=True).start()
        started.wait(30)
        workers._close_all()
        print([health.reason for health in take(Path(sys.argv[1])).health])
        """,
        tmp_path,
    )
    assert printed == "[]\n"


def test_what_several_threads_ask_is_read_by_one_at_a_time(tmp_path, monkeypatch):
    worker = start_worker(tmp_path)
    both = threading.Barrier(2)
    read = archive.read
    met = []

    def read_together(*arguments: object) -> object:
        with suppress(threading.BrokenBarrierError):
            both.wait(0.2)  # in vain: the other one is to wait until this one is done
            met.append(True)
        return read(*arguments)

    monkeypatch.setattr(archive, "read", read_together)
    source = Source(config(tmp_path))
    with ThreadPoolExecutor(2) as threads:
        found = [threads.submit(source.take) for _ in range(2)]
    assert [len(future.result(0).workers) for future in found] == [1, 1]
    assert not met
    worker.close()


def test_slots_that_are_taken_cost_no_descriptor(tmp_path):
    workers = [start_worker(tmp_path) for _ in range(3)]
    with Directory(place(tmp_path)) as directory:
        before = len(os.listdir("/proc/self/fd"))
        slot, fd = directory.take_slot()
        assert slot == 3
        assert len(os.listdir("/proc/self/fd")) == before + 1
        os.close(fd)
    for worker in workers:
        worker.close()


@pytest.mark.parametrize("forks", [50, pytest.param(1000, marks=pytest.mark.slow)])
def test_forks_while_threads_start_workers_never_deadlock(tmp_path, forks):
    printed = run(
        """
        import os, sys, threading, warnings
        from pathlib import Path
        from tests.store.support import config, open_connection
        from tests.store.traffic import fork
        from ws_lifecycle_metrics.store.workers import current
        from ws_lifecycle_metrics.store.snapshot import Source

        warnings.simplefilter("ignore", DeprecationWarning)  # forking with threads is the point
        base, done = Path(sys.argv[1]), threading.Event()

        def session():
            open_connection(current(config(base)))

        def busy():
            while not done.is_set():
                thread = threading.Thread(target=session)
                thread.start()
                thread.join()
                Source(config(base)).take()

        def child():
            session()
            os._exit(0)

        threads = [threading.Thread(target=busy) for _ in range(2)]
        for thread in threads:
            thread.start()
        for _ in range(int(sys.argv[2])):
            assert os.waitpid(fork(child), 0)[1] == 0
        done.set()
        print("done")
        """,
        tmp_path,
        forks,
        timeout=300,
    )
    assert printed == "done\n"


def test_a_directory_is_closed_with_its_worker(tmp_path):
    worker = start_worker(tmp_path)
    worker.close()
    assert worker.segment.directory.fd == -1
    with Directory(place(tmp_path)) as directory:
        assert directory.segments() == []


def test_who_starts_folds_what_the_dead_have_left(tmp_path):
    worker = start_worker(tmp_path)
    open_connection(worker)
    die(worker)
    current(config(tmp_path))
    assert len(segments(tmp_path)) == 1
    assert value(take(tmp_path), catalog.LOST_CONNECTIONS) == 1


def test_what_was_counted_since_the_latest_beat_is_written_at_the_end(tmp_path):
    worker = start_worker(tmp_path)
    record = open_connection(worker)
    send_unwritten(worker, record, 7)
    worker.close()
    assert value(take(tmp_path), catalog.SENT_MESSAGES, "/chat", "text") == 7


def test_a_child_of_multiprocessing_ends_as_others_do(tmp_path):
    printed = run(
        """
        import multiprocessing, sys
        from pathlib import Path
        from tests.store.support import config, segments, take
        from ws_lifecycle_metrics.store.workers import current

        base = Path(sys.argv[1])
        child = multiprocessing.get_context("fork").Process(target=current, args=[config(base)])
        child.start()
        child.join(30)
        print(child.exitcode, len(segments(base)), take(base).health)
        """,
        tmp_path,
    )
    assert printed == "0 0 []\n"


def test_serials_go_on_in_a_new_segment(tmp_path):
    worker = current(config(tmp_path))
    worker.connections = 5
    (place(tmp_path) / worker.segment.name).unlink()
    assert renew(worker).connections == 5


def test_without_namespaces_nobody_knows_whose_a_pid_is(tmp_path, monkeypatch):
    mine = start_worker(tmp_path)
    assert process.is_here(mine.segment.header)
    monkeypatch.setattr(process, "namespace", lambda _kind: 0)  # as where there is no /proc
    others = start_worker(tmp_path)
    others.segment.header[at.PID_NAMESPACE] = 0
    assert not process.is_here(mine.segment.header)
    assert not process.is_here(others.segment.header)
    mine.close()
    others.close()
