"""No usable directory, no room, no descriptors: the application is unharmed, and it is said."""

from __future__ import annotations

import asyncio
import os
import subprocess
import threading
from pathlib import Path

import pytest

from tests.store.support import (
    ACCEPTED,
    ROOT,
    SERVICE,
    config,
    counters,
    die,
    environment,
    fallen,
    open_connection,
    place,
    python,
    run,
    segments,
    send_unwritten,
    start_worker,
    take,
    value,
)
from tests.store.traffic import application, converse
from ws_lifecycle_metrics import LifecycleMiddleware, catalog, metrics_app
from ws_lifecycle_metrics.catalog import Kind
from ws_lifecycle_metrics.config import Config
from ws_lifecycle_metrics.store import directory, workers
from ws_lifecycle_metrics.store.snapshot import Source
from ws_lifecycle_metrics.store.workers import current

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")


def scrape(config: Config) -> str:
    """Return what the in-process endpoint answers, on a loop of its own."""
    return asyncio.run(answer(config))


async def answer(config: Config) -> str:
    sent = []

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "GET", "headers": []}
    await metrics_app(config)(scope, None, send)
    assert sent[0]["status"] == 200
    return sent[1]["body"].decode()


def file_in_its_place(base: Path) -> None:
    place(base).write_text("mine")


def file_above(base: Path) -> None:
    base.rmdir()
    base.write_text("mine")


def link(base: Path) -> None:
    (base / "elsewhere").mkdir(mode=0o700)
    place(base).symlink_to(base / "elsewhere")


def foreign(base: Path) -> None:
    place(base).mkdir(mode=0o700)
    os.chown(place(base), 12345, -1)


def open_to_all(base: Path) -> None:
    place(base).mkdir()
    place(base).chmod(0o777)


def slot_is_a_directory(base: Path) -> None:
    place(base).mkdir(mode=0o700)
    (place(base) / "slot-0").mkdir()


@pytest.mark.parametrize(
    "spoil",
    [
        file_in_its_place,
        file_above,
        link,
        pytest.param(foreign, marks=as_root),
        open_to_all,
        slot_is_a_directory,
    ],
)
def test_without_a_usable_directory_memory_serves_in_process(tmp_path, caplog, spoil):
    base = tmp_path / "base"
    base.mkdir()
    spoil(base)
    here = config(base, route=lambda scope: scope["path"])
    app = LifecycleMiddleware(application, config=here)

    async def visit() -> str:
        await converse(app, "/chat")
        return await answer(here)

    for _ in range(3):
        text = asyncio.run(visit())
    assert 'websocket_server_handshakes_total{http_route="/chat",result="accepted"} 3.0' in text
    assert "ws_lifecycle_metrics_storage_degraded 1.0" in text
    assert "asgi_workers_reporting 1.0" in text
    assert "ws_lifecycle_metrics_internal_errors_total 0.0" in text
    (record,) = caplog.records
    assert "metrics stay in this process" in record.getMessage()
    assert not list(base.rglob("*.segment")) if base.is_dir() else base.read_text() == "mine"


def test_who_only_reads_says_once_why_it_cannot(tmp_path, caplog):
    open_to_all(tmp_path)
    source = Source(config(tmp_path))
    for _ in range(2):
        assert value(source.take(), catalog.STORAGE_DEGRADED) == 1
    (record,) = caplog.records
    assert record.getMessage().startswith("no shared segments are read: ")
    assert str(place(tmp_path)) in record.getMessage()


def test_no_total_falls_while_the_directory_cannot_be_used(tmp_path):
    worker = start_worker(tmp_path)
    source = Source(config(tmp_path))
    worker.route("/chat").words[ACCEPTED] += 3
    found = []
    try:
        for mode in (0o700, 0o722, 0o700):
            place(tmp_path).chmod(mode)
            families = {family.metric: family.series for family in source.take().families()}
            found.append(families)
    finally:
        worker.close()
    before, meanwhile, after = found
    assert before[catalog.HANDSHAKES] == after[catalog.HANDSHAKES]
    assert before[catalog.HANDSHAKES]["/chat", "accepted"] == 3
    counted = {m: s for m, s in meanwhile.items() if m.kind is not Kind.GAUGE and s}
    assert counted.keys() <= {catalog.OTLP_PUSHES}
    assert meanwhile[catalog.STORAGE_DEGRADED] == {(): 1}
    # Else an alert would take totals for new that come back after a long time.
    assert meanwhile[catalog.EXPORTER_TIME] == {}


def test_what_is_unsafe_again_is_said_again(tmp_path, caplog):
    worker = start_worker(tmp_path)
    source = Source(config(tmp_path))
    try:
        for path, safe in ((*segments(tmp_path), 0o600), (place(tmp_path), 0o700)):
            for mode in (0o722, 0o722, safe, safe, 0o722):
                path.chmod(mode)
                source.take()
            path.chmod(safe)
    finally:
        worker.close()
    said = [message.partition(": ")[0] for message in caplog.messages]
    name = worker.segment.name
    assert said == [f"{name} is skipped"] * 2 + ["no shared segments are read"] * 2


def test_a_missing_directory_is_made_for_this_user_alone(tmp_path, caplog):
    here = config(tmp_path / "not" / "yet")
    asyncio.run(converse(LifecycleMiddleware(application, config=here), "/"))
    assert place(tmp_path / "not" / "yet").stat().st_mode & 0o777 == 0o700
    assert segments(tmp_path / "not" / "yet")[0].stat().st_mode & 0o777 == 0o600
    assert "ws_lifecycle_metrics_storage_degraded 0.0" in scrape(here)
    assert not caplog.records


def test_a_system_without_file_locks_keeps_memory(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(directory, "SUPPORTED", False)
    current(config(tmp_path)).route("/chat").words[ACCEPTED] += 1
    snapshot = take(tmp_path)
    assert value(snapshot, catalog.STORAGE_DEGRADED) == 1
    assert value(snapshot, catalog.HANDSHAKES, "/chat") == 1
    assert len(caplog.records) == 1


def test_threads_that_end_take_no_count_with_them(tmp_path, monkeypatch):
    monkeypatch.setattr(directory, "SUPPORTED", False)
    here = config(tmp_path)

    def count() -> None:
        open_connection(current(here))

    last: dict[object, float] = {}
    for number in range(5):
        thread = threading.Thread(target=count)
        thread.start()
        thread.join()
        current(config(tmp_path / str(number)))  # whoever starts sweeps up
        snapshot = take(tmp_path)
        now = counters(snapshot)
        assert not fallen(last, now)
        assert value(snapshot, catalog.HANDSHAKES, "/chat", "accepted") == number + 1
        assert value(snapshot, catalog.LOST_CONNECTIONS, "/chat") == number + 1
        last = now
    assert len(workers.local_workers(here)) == 0


def test_what_a_thread_counted_since_the_latest_beat_is_not_lost_with_it(tmp_path, monkeypatch):
    monkeypatch.setattr(directory, "SUPPORTED", False)
    here = config(tmp_path)

    def leave_open() -> None:
        worker = current(here)
        record = open_connection(worker)
        send_unwritten(worker, record, 7)

    thread = threading.Thread(target=leave_open)
    thread.start()
    thread.join()
    current(config(tmp_path / "other"))  # whoever starts sweeps up
    monkeypatch.undo()  # as a disk that was full then
    snapshot = take(tmp_path)
    assert value(snapshot, catalog.SENT_MESSAGES, "/chat", "text") == 7
    assert value(snapshot, catalog.STORAGE_DEGRADED) == 1  # other processes miss them


LIMITED = """
    import asyncio, logging, resource, sys
    from pathlib import Path
    from tests.store.support import *
    from tests.store.traffic import application, converse
    from ws_lifecycle_metrics import LifecycleMiddleware
    from ws_lifecycle_metrics.store.workers import current

    base, limit = Path(sys.argv[1]), int(sys.argv[2])
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    lines = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    logging.getLogger().addHandler(handler)
"""


def test_a_disk_that_is_full_at_the_start(tmp_path):
    printed = run(
        LIMITED
        + """
    here = config(base, route=lambda scope: scope["path"])
    app = LifecycleMiddleware(application, config=here)
    for _ in range(5):
        asyncio.run(converse(app, "/chat"))
    snapshot = take(base)
    assert value(snapshot, catalog.CLOSES, "/chat") == 5
    assert value(snapshot, catalog.RECEIVED_MESSAGES, "/chat") == 15
    assert value(snapshot, catalog.STORAGE_DEGRADED) == 1
    assert value(snapshot, catalog.INTERNAL_ERRORS) == 0
    assert not list(place(base).glob("*.segment")), "a draft is left"
    print(*lines, sep="\\n")
    """,
        tmp_path,
        32 * 1024,
    )
    (line,) = printed.splitlines()
    assert "metrics stay in this process" in line
    assert "File too large" in line


def test_a_disk_that_is_full_later(tmp_path):
    printed = run(
        LIMITED
        + """
    here = config(base, max_routes=1000)
    worker = current(here)
    held = [open_connection(worker) for _ in range(500)]
    for number in range(300):
        name = f"/{number}"
        record = open_connection(worker, name)
        record[at.SENT_TEXT] += 1
        worker.route(name).give_back(record)
    for record in held:
        record[at.RECEIVED_TEXT] += 1
        worker.route("/chat").give_back(record)
    snapshot = take(base)
    assert value(snapshot, catalog.HANDSHAKES) == 800
    assert value(snapshot, catalog.HANDSHAKES, "/chat") == 500
    assert value(snapshot, catalog.HANDSHAKES, "other") > 100
    assert value(snapshot, catalog.RECEIVED_MESSAGES) == 500
    assert value(snapshot, catalog.SENT_MESSAGES) == 300
    assert value(snapshot, catalog.LABEL_OVERFLOW, "http_route") > 100
    assert value(snapshot, catalog.STORAGE_DEGRADED) == 1
    assert value(snapshot, catalog.ACTIVE_CONNECTIONS) == 0
    assert worker.segment.shared
    print(*lines, sep="\\n")
    """,
        tmp_path,
        128 * 1024,
    )
    (line,) = printed.splitlines()
    assert "no room for more metrics" in line


def test_room_that_comes_back_ends_what_was_said_of_it(tmp_path):
    run(
        LIMITED
        + """
    worker = current(config(base, max_routes=1000))
    resource.setrlimit(resource.RLIMIT_FSIZE, (128 * 1024, limit))
    for number in range(300):
        worker.route(f"/{number}")
    assert value(take(base), catalog.STORAGE_DEGRADED) == 1
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    assert worker.route("/299").name == "/299"
    assert value(take(base), catalog.STORAGE_DEGRADED) == 0
    """,
        tmp_path,
        1 << 30,
    )


def test_no_room_for_the_archive_costs_no_count_and_no_scrape(tmp_path):
    dead = start_worker(tmp_path)
    open_connection(dead)
    die(dead)
    printed = run(
        LIMITED
        + """
    source = Source(config(base))
    for _ in range(3):
        snapshot = source.take()
        assert value(snapshot, catalog.LOST_CONNECTIONS, "/chat") == 1
    print(*lines, sep="\\n")
    """,
        tmp_path,
        100,
    )
    (line,) = printed.splitlines()
    assert "File too large" in line
    assert len(segments(tmp_path)) == 1


def test_a_scrape_without_descriptors_fails_rather_than_shows_less(tmp_path):
    worker = start_worker(tmp_path)
    open_connection(worker)
    run(
        LIMITED
        + """
    import errno
    from ws_lifecycle_metrics.telemetry.prometheus import render
    source = Source(config(base))
    before = counters(source.take())
    render(source.take)  # what is loaded at the first time is loaded
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    hoard = []
    while True:
        try:
            hoard.append(open("/dev/null"))
        except OSError:
            break
    answers = []
    for _ in range(6):  # none is left, then one, two, ...
        text = render(source.take)[0].decode()
        served = 'websocket_server_handshakes_total{http_route="/chat",result="accepted"} 1.0'
        answers.append("collector_success 1.0" in text)
        assert (served in text) == answers[-1] == ("websocket_server" in text)
        hoard.pop().close()
    assert set(answers) == {False, True}
    assert counters(source.take()) == before
    print(len(lines))
    """,
        tmp_path,
        1 << 30,
    )
    worker.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a tmpfs")
def test_a_full_tmpfs_kills_no_worker(tmp_path):
    program = python(
        LIMITED
        + """
    worker = current(config(base))
    for _ in range(3000):
        open_connection(worker)
    assert worker.segment.shared
    filled = (base / "filled").open("wb", buffering=0)
    try:
        while True:
            filled.write(bytes(4096))
    except OSError as error:
        print(error.strerror)
    worker.route("/chat").words[ACCEPTED] += 1  # no SIGBUS: its room was had before
    for _ in range(3000):
        open_connection(worker)
    assert value(take(base), catalog.HANDSHAKES) == 6001
    print(*lines, sep="\\n")
    """,
        tmp_path,
        1 << 30,
    )
    mounted = [
        "unshare",
        "--mount",
        "sh",
        "-c",
        f'mount -t tmpfs -o size=2m none {tmp_path} && exec "$@"',
    ]
    try:
        done = subprocess.run(
            [*mounted, "sh", *program],
            env=environment(), cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    except FileNotFoundError:
        pytest.skip("no unshare here")
    if "mount" in done.stderr or "unshare" in done.stderr:
        pytest.skip(f"no mount here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    *_, line = done.stdout.splitlines()
    assert "no room for more metrics" in line


def test_the_service_is_the_directory(tmp_path):
    assert place(tmp_path).name == SERVICE
