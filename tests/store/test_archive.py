"""The archive of dead workers: nothing is lost, nothing counts twice, and no total falls."""

from __future__ import annotations

import errno
import json
import os
import threading
import time
from pathlib import Path

import pytest

from tests.store.support import (
    CLOSED,
    OPEN_STATE,
    config,
    counters,
    die,
    eventually,
    fallen,
    open_connection,
    place,
    run,
    running,
    segments,
    start_worker,
    take,
    value,
)
from tests.store.traffic import fork as start_child
from ws_lifecycle_metrics import catalog
from ws_lifecycle_metrics.store import archive, outdated
from ws_lifecycle_metrics.store import layout as at
from ws_lifecycle_metrics.store.directory import Directory, try_lock
from ws_lifecycle_metrics.store.reader import BadSegment, Contents, Reader
from ws_lifecycle_metrics.store.snapshot import Source
from ws_lifecycle_metrics.telemetry.prometheus import render


def fold(base: Path) -> int:
    with Directory(place(base)) as directory:
        return archive.fold(directory, Reader())


def dead_worker(base: Path, route: str = "/chat") -> None:
    """Leave the segment of a worker with a closed and an open connection and a message."""
    worker = start_worker(base)
    record = open_connection(worker, route)
    record[at.RECEIVED_TEXT] += 1
    worker.route(route).words[CLOSED] += 1
    worker.route(route).give_back(record)
    open_connection(worker, route)
    die(worker)


def test_a_fold_changes_no_total(tmp_path):
    dead_worker(tmp_path)
    before = counters(take(tmp_path))  # which folds it, after it has read it
    assert not segments(tmp_path)
    assert counters(take(tmp_path)) == before


def test_open_connections_of_the_dead_are_lost_and_no_longer_active(tmp_path):
    worker = start_worker(tmp_path)
    for _ in range(3):
        open_connection(worker)
    unanswered = worker.route("/chat").take()
    unanswered[at.STATE] = 1
    assert value(take(tmp_path), catalog.LOST_CONNECTIONS) == 0
    die(worker)
    for _ in range(3):
        snapshot = take(tmp_path)
        assert value(snapshot, catalog.LOST_CONNECTIONS, "/chat") == 3
        assert value(snapshot, catalog.HANDSHAKES, "/chat", "aborted") == 1
        assert value(snapshot, catalog.ACTIVE_CONNECTIONS) == 0
        assert value(snapshot, catalog.WORKERS_REPORTING) == 0


@pytest.mark.parametrize("state", [0, OPEN_STATE], ids=["given back", "still open"])
def test_killed_between_the_close_and_the_end_of_the_record_it_is_one_of_both(tmp_path, state):
    worker = start_worker(tmp_path)
    record = open_connection(worker)
    worker.route("/chat").words[CLOSED] += 1
    record[at.STATE] = state
    die(worker)
    snapshot = take(tmp_path)
    assert value(snapshot, catalog.LOST_CONNECTIONS) == 0
    assert value(snapshot, catalog.CLOSES) == 1


def test_what_a_worker_leaves_at_its_end_it_folds_itself(tmp_path):
    worker = start_worker(tmp_path)
    open_connection(worker)
    worker.close()
    assert not segments(tmp_path)
    assert value(take(tmp_path), catalog.LOST_CONNECTIONS) == 1


def test_a_worker_that_lives_is_not_folded(tmp_path):
    worker = start_worker(tmp_path)
    assert fold(tmp_path) == 0
    assert segments(tmp_path)
    worker.close()


def test_a_fold_that_is_killed_at_any_step_loses_and_doubles_nothing(tmp_path):
    printed = run(
        """
        import os, signal, sys
        from itertools import count
        from pathlib import Path
        from tests.store.support import segments
        from tests.store.test_archive import dead_worker, fold

        def kill_at(step):
            steps = count()
            def watch(event, arguments):
                if event in {"open", "os.listdir", "os.rename", "os.remove"}:
                    if next(steps) == step:
                        os.kill(os.getpid(), signal.SIGKILL)
            sys.addaudithook(watch)

        base = Path(sys.argv[1])
        for step in count():
            for route in ("/chat", "/feed"):
                dead_worker(base, route)
            child = os.fork()
            if not child:
                kill_at(step)
                fold(base)
                os._exit(0)
            if os.waitpid(child, 0)[1] == 0:
                break
            print(len(segments(base)))
            fold(base)
        """,
        tmp_path,
    )
    left = [int(line) for line in printed.split()]
    assert set(left) == {2, 1}, "killed before the first removal and between the two"
    assert len(left) > 8
    snapshot = take(tmp_path)
    deaths = len(left) + 1
    for route in ("/chat", "/feed"):
        assert value(snapshot, catalog.HANDSHAKES, route, "accepted") == 2 * deaths
        assert value(snapshot, catalog.CLOSES, route) == deaths
        assert value(snapshot, catalog.LOST_CONNECTIONS, route) == deaths
        assert value(snapshot, catalog.RECEIVED_MESSAGES, route) == deaths
    assert not segments(tmp_path)


def test_readers_and_folders_at_once_see_no_total_fall(tmp_path):
    stop = threading.Event()
    falls: list[object] = []
    readings = [0, 0, 0]

    def read_on(number: int) -> None:
        source, last = Source(config(tmp_path)), {}
        while not stop.is_set():
            now = counters(source.take())
            falls.extend(fallen(last, now).items())
            last = now
            readings[number] += 1

    place(tmp_path).mkdir(parents=True, mode=0o700)
    folders = "import sys; from tests.store.test_archive import *\nwhile 1: fold(Path(sys.argv[1]))"
    threads = [threading.Thread(target=read_on, args=(n,)) for n in range(len(readings))]
    with running(folders, tmp_path), running(folders, tmp_path):
        for thread in threads:
            thread.start()
        for number in range(100):
            dead_worker(tmp_path, f"/{number % 7}")
        eventually(lambda: min(readings) > 5)
        stop.set()
        for thread in threads:
            thread.join(30)
    snapshot = take(tmp_path)
    assert not falls
    assert value(snapshot, catalog.HANDSHAKES) == 200
    assert value(snapshot, catalog.LOST_CONNECTIONS) == 100
    take(tmp_path)
    assert not segments(tmp_path)


def test_what_a_killed_fold_left_is_removed_by_the_next_reading(tmp_path):
    dead_worker(tmp_path)
    [path] = segments(tmp_path)
    content = path.read_bytes()
    assert fold(tmp_path) == 1
    path.write_bytes(content)
    path.chmod(0o600)
    assert value(take(tmp_path), catalog.LOST_CONNECTIONS) == 1
    assert not segments(tmp_path)
    assert value(take(tmp_path), catalog.LOST_CONNECTIONS) == 1


def test_where_nobody_folds_the_segments_are_read_once(tmp_path):
    class Counted(Reader):
        times = 0

        def read(self, directory: Directory) -> list[Contents]:
            self.times += 1
            return super().read(directory)

    worker, reader = start_worker(tmp_path), Counted()
    with Directory(place(tmp_path)) as opened:
        assert len(archive.read(opened, reader)[1]) == reader.times == 1
    worker.close()


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_fold_while_one_reads_is_noticed(tmp_path, when):
    dead_worker(tmp_path)

    class Interrupted(Reader):
        def read(self, directory: Directory) -> list[Contents]:
            if when == "before":
                fold(tmp_path)
            found = super().read(directory)
            fold(tmp_path)
            return found

    source = Source(config(tmp_path))
    source._reader = Interrupted()
    assert value(source.take(), catalog.LOST_CONNECTIONS) == 1
    assert value(source.take(), catalog.LOST_CONNECTIONS) == 1


def test_while_another_folds_nothing_is_done(tmp_path):
    dead_worker(tmp_path)
    with Directory(place(tmp_path)) as directory, directory.exclusive() as locked:
        assert locked
        assert fold(tmp_path) == 0
    assert fold(tmp_path) == 1


def totals(*series: object, **changes: object) -> bytes:
    data = {"format": 1, "generation": 3, "folded": [], "totals": series, **changes}
    return json.dumps(data).encode()


HANDSHAKES = catalog.HANDSHAKES.name
FIT = [HANDSHAKES, ["/kept", "accepted"], [4]]
BAD_ARCHIVES = {
    "empty": b"",
    "no JSON": b"{",
    "no UTF-8": b"\xff\xfe\xfd",
    "a list": b"[]",
    "a number": b"7",
    "null": b"null",
    "deep": b"[" * 200_000,
    "deep within": totals(FIT)[:-1] + b',"more":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "NaN": totals([HANDSHAKES, ["/x", "accepted"], [float("nan")]]),
    "Infinity": totals([HANDSHAKES, ["/x", "accepted"], [float("inf")]]),
    "an int of 5000 digits": totals(FIT).replace(b"[4]", b"[" + b"9" * 5000 + b"]"),
    "an infinite generation": totals(FIT).replace(b'"generation": 3', b'"generation": 1e999'),
    "a negative generation": totals(FIT, generation=-1),
    "another format": totals(FIT, format=2),
    "no totals": b'{"format": 1, "generation": 3, "folded": []}',
    "totals of a wrong shape": totals(FIT, FIT[:2]),
    "a list for a name": totals([[], ["/x", "accepted"], [4]]),
    "folded of a wrong shape": totals(FIT, folded=[3]),
    "infinite deaths": totals(FIT, deaths={"0": 1}).replace(b'{"0": 1}', b'{"0": 1e999}'),
    "negative deaths": totals(FIT, deaths={"0": -3}),
    "deaths of a negative slot": totals(FIT, deaths={"-1": 3}),
    "too many deaths": totals(FIT, deaths={"0": 10**40}),
    "larger than allowed": totals(FIT) + b" " * (1 << 22),
}


def put_archive(base: Path, text: bytes) -> Path:
    place(base).mkdir(parents=True, exist_ok=True, mode=0o700)
    path = place(base) / archive.NAME
    path.write_bytes(text)
    path.chmod(0o600)
    return path


@pytest.mark.parametrize("text", BAD_ARCHIVES.values(), ids=BAD_ARCHIVES)
def test_a_bad_archive_is_skipped_counted_named_once_and_set_aside(tmp_path, caplog, text):
    worker = start_worker(tmp_path)
    open_connection(worker)
    alone = counters(take(tmp_path))
    put_archive(tmp_path, text)
    source = Source(config(tmp_path))
    for _ in range(3):
        snapshot = source.take()
        assert list(snapshot.skipped) == [archive.NAME]
        assert counters(snapshot) == alone
        assert b"ws_lifecycle_metrics_skipped_segments 1.0" in render(source.take)[0]
    assert len([r for r in caplog.records if archive.NAME in r.getMessage()]) == 1
    die(worker)
    source.take()
    assert not segments(tmp_path)
    snapshot = source.take()
    assert value(snapshot, catalog.LOST_CONNECTIONS) == 1
    assert not snapshot.skipped
    (aside,) = place(tmp_path).glob("archive.bad-*")
    assert aside.read_bytes() == text


def link(path: Path) -> None:
    target = path.parent / "elsewhere"
    path.rename(target)
    path.symlink_to(target)


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


def directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def sparse(path: Path) -> None:
    os.truncate(path, 1 << 40)


@pytest.mark.parametrize(
    "spoil", [link, fifo, directory, sparse, lambda path: path.chmod(0o666)],
    ids=["a symbolic link", "a FIFO", "a directory", "a sparse TiB", "mode 0666"],
)  # fmt: skip
def test_an_archive_that_is_no_plain_file_is_skipped_and_set_aside(tmp_path, spoil):
    spoil(put_archive(tmp_path, totals(FIT)))
    descriptors = len(os.listdir("/proc/self/fd"))
    source = Source(config(tmp_path))
    assert list(source.take().skipped) == [archive.NAME]
    assert value(source.take(), catalog.HANDSHAKES) == 0
    assert len(os.listdir("/proc/self/fd")) == descriptors
    dead_worker(tmp_path)
    source.take()
    assert value(source.take(), catalog.HANDSHAKES) == 2
    assert not source.take().skipped


MISFITS = {
    "an unknown metric": ["nothing.known", ["/x"], [4]],
    "too few labels": [HANDSHAKES, ["/x"], [4]],
    "no label at all": [catalog.RECEIVED_BYTES.name, [], [4]],
    "an unknown result": [HANDSHAKES, ["/x", "invented"], [4]],
    "too many words": [HANDSHAKES, ["/x", "accepted"], [4, 4]],
    "a negative count": [HANDSHAKES, ["/x", "accepted"], [-4]],
    "half a count": [HANDSHAKES, ["/x", "accepted"], [0.5]],
    "a count of 4000 digits": [HANDSHAKES, ["/x", "accepted"], [10**4000]],
    "a bool": [HANDSHAKES, ["/x", "accepted"], [True]],
    "a text": [HANDSHAKES, ["/x", "accepted"], ["4"]],
    "a histogram of other buckets": [catalog.SEND_DURATION.name, ["/x"], [1, 2, 3]],
}


@pytest.mark.parametrize("misfit", MISFITS.values(), ids=MISFITS)
def test_what_does_not_fit_in_an_archive_is_left_out(tmp_path, misfit):
    put_archive(tmp_path, totals(FIT, misfit))
    snapshot = take(tmp_path)
    assert value(snapshot, catalog.HANDSHAKES, "/kept", "accepted") == 4
    assert value(snapshot, catalog.HANDSHAKES) == 4
    assert b'"/x"' not in render(lambda: snapshot)[0]


@pytest.mark.parametrize("route", ["\ud800", "a\nb", "\x1b[2J", "‮", "x" * 5000])
def test_an_archived_label_is_made_harmless(tmp_path, route):
    put_archive(tmp_path, totals([HANDSHAKES, [route, "accepted"], [4]]))
    text = render(lambda: take(tmp_path))[0].decode()
    assert "collector_success 1.0" in text
    assert not {"\x1b", "‮"} & set(text)
    assert max(map(len, text.splitlines())) < 400


def test_routes_stay_bounded_over_any_number_of_workers(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "MAX_NAMES", 10)
    for number in range(30):
        dead_worker(tmp_path, f"/{number}")
        take(tmp_path)
    snapshot = take(tmp_path)
    routes = {labels[0] for name, labels in snapshot.totals if name == HANDSHAKES}
    assert routes == {*(f"/{number}" for number in range(10)), "other"}
    assert value(snapshot, catalog.HANDSHAKES, "other", "accepted") == 2 * 20
    assert value(snapshot, catalog.LOST_CONNECTIONS) == 30


def test_an_archive_that_would_be_too_large_keeps_fewer_names(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(archive, "MAX_NAMES", 40)
    routes = []
    for base in (tmp_path / "whole", tmp_path / "bounded"):
        for number in range(40):
            dead_worker(base, f"/{number}")
        take(base)
        assert not segments(base)
        snapshot = take(base)
        routes.append({labels[0] for name, labels in snapshot.totals if name == HANDSHAKES})
        assert value(snapshot, catalog.HANDSHAKES) == 40 * 2
        size = (place(base) / archive.NAME).stat().st_size
        monkeypatch.setattr(archive, "MAX_BYTES", size * 3 // 4)
    assert [len(found) for found in routes] == [41, 21]
    assert "other" in routes[1]
    assert not caplog.records


def test_deaths_add_up_over_folds(tmp_path):
    for deaths in range(1, 4):
        dead_worker(tmp_path)
        assert fold(tmp_path) == 1
        with Directory(place(tmp_path)) as directory:
            assert archive.load(directory).deaths == {0: deaths}


def test_a_death_is_shown_as_long_as_was_asked_for(tmp_path):
    source = Source(config(tmp_path, death_shown=0.001))
    worker = start_worker(tmp_path)
    source.take()
    die(worker)
    snapshot = source.take()
    assert [health.reason for health in snapshot.health] == ["dead"]
    assert not snapshot.stuck_workers()  # which are the living ones
    another = start_worker(tmp_path)  # in its place
    eventually(lambda: [h.reason for h in source.take().health] == [None], timeout=5)
    another.close()


def test_an_archive_that_cannot_be_opened_for_want_of_means_stays(tmp_path):
    class Poor(Directory):
        def open(self, name: str, flags: int) -> int:
            if name == archive.NAME:
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            return super().open(name, flags)

    dead_worker(tmp_path)
    fold(tmp_path)
    dead_worker(tmp_path)
    with Poor(place(tmp_path)) as poor:
        assert archive.fold(poor, Reader()) == 0
    assert value(take(tmp_path), catalog.LOST_CONNECTIONS) == 2


def test_a_child_that_was_forked_during_a_fold_keeps_nobody_from_folding(tmp_path):
    dead_worker(tmp_path)
    wait, end = os.pipe()
    with Directory(place(tmp_path)) as directory:
        with directory.exclusive() as locked:
            assert locked
            child = start_child(lambda: os.close(end) or os.read(wait, 1))
        assert fold(tmp_path) == 1
    os.close(end)
    os.waitpid(child, 0)
    os.close(wait)


def test_an_archive_too_large_to_be_read_is_not_written(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(archive, "MAX_BYTES", 200)
    dead_worker(tmp_path)
    source = Source(config(tmp_path))
    for _ in range(3):
        assert value(source.take(), catalog.LOST_CONNECTIONS) == 1
    assert segments(tmp_path)
    assert len(caplog.records) == 1


def test_drafts_of_killed_workers_are_removed_when_they_are_old(tmp_path):
    dead_worker(tmp_path)
    old, young, living = (place(tmp_path) / f".{number}-draft.segment" for number in range(3))
    for path in (old, young, living):
        path.write_bytes(b"")
    for path in (old, living):
        os.utime(path, (time.time() - 120,) * 2)
    (place(tmp_path) / ".0-link.segment").symlink_to(old)  # whoever left it is not asked
    descriptors = len(os.listdir("/proc/self/fd"))
    with living.open() as file:
        archive.try_lock(file.fileno(), exclusive=True)
        assert fold(tmp_path) == 1
    assert [path.exists() for path in (old, young, living)] == [False, True, True]
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_counting_began_no_later_than_now_wherever_the_clock_was_set(tmp_path):
    put_archive(tmp_path, totals(FIT, since=time.time_ns() + 86_400 * at.NS))
    snapshot = take(tmp_path)
    assert 0 < snapshot.since <= snapshot.wall * at.NS


def test_an_archive_says_what_is_wrong_with_it(tmp_path):
    put_archive(tmp_path, b"[]")
    with Directory(place(tmp_path)) as opened, pytest.raises(BadSegment, match="not an archive"):
        archive.load(opened)


def other_version(base: Path, name: str, age: float) -> Path:
    """A segment of another version's, whose worker is gone, with a side file."""
    worker = start_worker(base)
    path = place(base) / worker.segment.name
    worker.segment.header[at.FINGERPRINT_AT] += 1
    die(worker)
    moved = path.with_name(f"{name}.segment")
    path.rename(moved)
    moved.with_suffix(".stacks").write_text("{}")
    os.utime(moved, (time.time() - age,) * 2)
    return moved


def test_segments_of_another_version_are_removed_when_they_are_old(tmp_path, caplog):
    day = outdated.KEPT_SECONDS
    old, living, young = (
        other_version(tmp_path, name, age)
        for name, age in (("1-old", day + 60), ("2-living", day + 60), ("3-young", day - 60))
    )
    source = Source(config(tmp_path))
    with living.open() as file:
        try_lock(file.fileno(), exclusive=True)
        assert value(source.take(), catalog.SKIPPED_SEGMENTS) == 3
        for _ in range(2):
            assert value(source.take(), catalog.SKIPPED_SEGMENTS) == 2
    assert [path.exists() for path in (old, living, young)] == [False, True, True]
    assert not old.with_suffix(".stacks").exists()
    assert sum("1-old.segment is removed" in line for line in caplog.messages) == 1
    fold(tmp_path)  # as each worker does that starts or ends
    assert [path.exists() for path in (living, young)] == [False, True]


def test_a_damaged_file_stays_however_old_it_is(tmp_path):
    path = other_version(tmp_path, "1-a", 10 * outdated.KEPT_SECONDS)
    with path.open("r+b") as file:
        file.write(bytes(at.WORD))  # no other version's magic, so nobody knows whose it is
    os.utime(path, (0, 0))
    for _ in range(2):
        assert take(tmp_path).skipped == {path.name: "not a segment"}


def test_files_with_one_fault_are_one_line(tmp_path, caplog):
    for name in ("1-a", "2-b", "3-c"):
        other_version(tmp_path, name, 0)
    (place(tmp_path) / "4-d.segment").write_bytes(b"")
    source = Source(config(tmp_path))
    for _ in range(2):
        assert len(source.take().skipped) == 4
    assert caplog.messages == [
        "1-a.segment and 2 more are skipped: written by another version",
        "4-d.segment is skipped: shorter than it says",
    ]
    other_version(tmp_path, "5-e", 0)
    source.take()
    assert caplog.messages[2:] == ["5-e.segment is skipped: written by another version"]


def test_outdated_segments_that_go_together_are_one_line(tmp_path, caplog):
    for name in ("1-a", "2-b", "3-c"):
        other_version(tmp_path, name, outdated.KEPT_SECONDS + 60)
    Source(config(tmp_path)).take()
    (line,) = (message for message in caplog.messages if "removed" in message)
    assert line.startswith("1-a.segment and 2 more are removed: workers of another version left")


def test_counters_at_odds_lose_no_fewer_than_none(tmp_path):
    worker = start_worker(tmp_path)
    open_connection(worker)
    worker.route("/chat").words[CLOSED] += 2  # as half of a dead worker's words may be
    die(worker)
    assert value(take(tmp_path), catalog.LOST_CONNECTIONS, "/chat") == 0


def test_operations_that_outlived_their_connection_are_no_aborted_handshake(tmp_path):
    worker = start_worker(tmp_path)
    worker.route("/chat").take()[at.STATE] = at.ORPHANED
    die(worker)
    assert value(take(tmp_path), catalog.HANDSHAKES, "/chat", "aborted") == 0
