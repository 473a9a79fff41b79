"""Whatever lies in the directory, the scrape is served and the other workers' counts are exact."""

from __future__ import annotations

import errno
import fcntl
import os
import random
import socket
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.store.support import (
    config,
    counters,
    die,
    open_connection,
    place,
    run,
    segments,
    start_worker,
    take,
    value,
)
from ws_lifecycle_metrics import catalog
from ws_lifecycle_metrics.store import archive, reader
from ws_lifecycle_metrics.store import layout as at
from ws_lifecycle_metrics.store.directory import Directory, try_lock
from ws_lifecycle_metrics.store.reader import Contents, Reader
from ws_lifecycle_metrics.store.snapshot import Source
from ws_lifecycle_metrics.store.workers import current
from ws_lifecycle_metrics.telemetry.prometheus import render

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")


def real_segment(base: Path) -> bytearray:
    """Return the bytes of a segment with two routes, a subprotocol and open connections."""
    worker = start_worker(base)
    for route in ("/bad/{id}", "/bad/feed", None):
        record = open_connection(worker, route)
        record[at.SUBPROTOCOL] = worker.subprotocol("bad.v1")
        record[at.RECEIVED_TEXT] = 7
    data = bytearray(worker.segment.contents())
    worker.segment.remove()
    return data


def put_words(data: bytearray, words: dict[int, int]) -> bytes:
    view = memoryview(data).cast("Q")
    for index, word in words.items():
        view[index] = word & (1 << 64) - 1
    return bytes(data)


def regular(change: Callable[[bytearray], bytes]) -> Callable[[Path, bytearray], None]:
    def make(path: Path, data: bytearray) -> None:
        path.write_bytes(change(data))
        path.chmod(0o600)

    return make


def damaged(words: dict[int, int]) -> Callable[[Path, bytearray], None]:
    return regular(lambda data: put_words(data, words))


def fifo(path: Path, data: bytearray) -> None:
    os.mkfifo(path, 0o600)


def directory(path: Path, data: bytearray) -> None:
    path.mkdir()


def symlink(path: Path, data: bytearray) -> None:
    target = path.parent / "elsewhere"
    target.write_bytes(data)
    target.chmod(0o600)
    path.symlink_to(target)


def unix_socket(path: Path, data: bytearray) -> None:
    where = os.getcwd()
    os.chdir(path.parent)  # a socket's path is short
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(path.name)
    os.chdir(where)


def sparse(size: int, used: int = 0) -> Callable[[Path, bytearray], None]:
    def make(path: Path, data: bytearray) -> None:
        path.write_bytes(put_words(data, {at.USED: used}) if used else b"")
        path.chmod(0o600)
        os.truncate(path, size)

    return make


def foreign(path: Path, data: bytearray) -> None:
    path.write_bytes(data)
    path.chmod(0o600)
    os.chown(path, 12345, -1)


def mode(bits: int) -> Callable[[Path, bytearray], None]:
    def make(path: Path, data: bytearray) -> None:
        path.write_bytes(data)
        path.chmod(bits)

    return make


BLOCK = at.HEADER_WORDS  # the first block, the worker's
ROUTE = BLOCK + -(-(at.BLOCK_NAME + at.WORKER_BLOCK_WORDS) // 8) * 8
BAD_FILES = {
    "a FIFO": (fifo, "not a regular file"),
    "a directory": (directory, "not a regular file"),
    "a symbolic link to a good segment": (symlink, os.strerror(errno.ELOOP)),
    "a socket": (unix_socket, os.strerror(errno.ENXIO)),
    "a sparse GiB": (sparse(1 << 30), "larger than"),
    "a sparse TiB": (sparse(1 << 40, used=1 << 37), "larger than"),
    "sparse and as large as allowed": (
        sparse(at.MAX_BYTES, used=at.MAX_BYTES // at.WORD),
        "blocks",
    ),
    "another user's": pytest.param(foreign, "owned by user 12345", marks=as_root),
    "writable by all": (mode(0o666), "mode 0666"),
    "writable by the group": (mode(0o620), "mode 0620"),
    "empty": (regular(lambda data: b""), "shorter"),
    "a text": (regular(lambda data: b"hello, world\n" * 99), "not a segment"),
    "all zeros": (regular(lambda data: bytes(len(data))), "not a segment"),
    "half a header": (regular(lambda data: bytes(data[:100])), "shorter"),
    "cut in a block": (regular(lambda data: bytes(data[: len(data) // 2])), "shorter"),
    "cut by a byte": (regular(lambda data: bytes(data[:-1])), "shorter"),
    "another magic": (damaged({at.MAGIC_AT: at.MAGIC ^ 1}), "not a segment"),
    "another byte order": (
        regular(lambda d: struct.pack(f">{len(d) // 8}Q", *memoryview(d).cast("Q"))),
        "not a segment",
    ),
    "another version's": (damaged({at.FINGERPRINT_AT: 1}), "another version"),
    "uses more than it has": (damaged({at.USED: 1 << 63}), "shorter"),
    "uses less than a header": (damaged({at.USED: 3}), "shorter"),
    "uses no block": (damaged({at.USED: at.HEADER_WORDS}), "without a worker"),
    "a block without an end": (damaged({BLOCK + at.BLOCK_WORDS: 0}), "overlap"),
    "a block beyond the end": (damaged({BLOCK + at.BLOCK_WORDS: 1 << 60}), "overlap"),
    "a name beyond the end": (damaged({ROUTE + at.BLOCK_NAME_BYTES: -1}), "overlap"),
    "a name longer than any": (damaged({ROUTE + at.BLOCK_NAME_BYTES: 1025}), "overlap"),
    "a block of no kind": (damaged({BLOCK + at.BLOCK_KIND: 99}), "no known kind"),
    "a route that is too short": (
        damaged({BLOCK + at.BLOCK_KIND: at.BlockKind.ROUTE}),
        "too short",
    ),
}


def parts(contents: Contents) -> object:
    """Return all that a segment holds, to compare two readings of it."""
    routes = {number: (name, bytes(words)) for number, (name, words) in contents.routes.items()}
    records = [(owner, bytes(words)) for owner, words in contents.records]
    return bytes(contents.worker), routes, contents.subprotocols, records


def read(base: Path, name: str) -> Contents:
    with Directory(place(base)) as opened:
        return next(found for found in Reader().read(opened) if found.name == name)


@pytest.mark.parametrize(
    ("make", "why"), [pytest.param(*getattr(v, "values", v), marks=getattr(v, "marks", ()), id=k)
                      for k, v in BAD_FILES.items()]
)  # fmt: skip
def test_a_bad_file_is_skipped_counted_and_named_once(tmp_path, caplog, make, why):
    bad = real_segment(tmp_path)
    worker = start_worker(tmp_path)
    open_connection(worker)
    alone = counters(take(tmp_path))
    make(place(tmp_path) / "1-bad.segment", bad)
    source = Source(config(tmp_path))
    for _ in range(3):
        snapshot = source.take()
        assert why in snapshot.skipped["1-bad.segment"]
        assert counters(snapshot) == alone
        assert value(snapshot, catalog.SKIPPED_SEGMENTS) == 1
        assert b"ws_lifecycle_metrics_skipped_segments 1.0" in render(lambda: source.take())[0]
    assert [record.getMessage().count("1-bad") for record in caplog.records] == [1]
    worker.close()


def test_all_bad_files_at_once_cost_little_memory(tmp_path):
    bad = real_segment(tmp_path)
    start_worker(tmp_path)
    for number, entry in enumerate(BAD_FILES.values()):
        if type(entry) is tuple:
            entry[0](place(tmp_path) / f"{number}-bad.segment", bytearray(bad))
    printed = run(
        """
        import logging, resource, sys
        from pathlib import Path
        from tests.store.support import take
        logging.disable()
        take(Path(sys.argv[2]))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        skipped = [len(take(Path(sys.argv[1])).skipped) for _ in range(5)]
        print(*skipped, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
        """,
        tmp_path,
        tmp_path / "none",
    )
    *skipped, grown = map(int, printed.split())
    assert set(skipped) == {sum(type(entry) is tuple for entry in BAD_FILES.values())}
    assert grown < 64 * 1024


def mutate(data: bytearray, chance: random.Random) -> bytes:
    """Damage the bytes of a segment in one to eight places, its structure above all."""
    data = bytearray(data)
    words = memoryview(data).cast("Q")
    heads = [at.USED, at.PID, at.SLOT, at.UUID_LOW, at.CREATED_WALL, at.TIME_NAMESPACE, at.FULL]
    position = at.HEADER_WORDS
    while position < len(words) and words[position + at.BLOCK_WORDS]:
        heads += range(position, position + at.BLOCK_NAME + 2)
        position += words[position + at.BLOCK_WORDS]
    for _ in range(chance.randint(1, 8)):
        where = chance.choice(heads) if chance.random() < 0.6 else chance.randrange(len(words))
        old = words[where]
        words[where] = chance.choice(
            [0, 1, 8, old ^ 1 << chance.randrange(64), (1 << 64) - 1, 1 << 63, old + 1 & 0xFFFF,
             chance.getrandbits(64), chance.randrange(len(words)), chance.randrange(64)]
        )  # fmt: skip
    words.release()
    if chance.random() < 0.1:
        return bytes(data[: chance.randrange(len(data))])
    if chance.random() < 0.1:
        start, end = sorted(chance.randrange(len(data)) for _ in "ab")
        return bytes(data[:start] + data[end:])
    return bytes(data)


@pytest.mark.parametrize(
    "mutations", [500, pytest.param(100_000, marks=pytest.mark.slow)], ids="{} mutations".format
)
def test_a_damaged_segment_harms_no_other(tmp_path, mutations, caplog, monkeypatch):
    caplog.set_level("ERROR")
    # Whatever pid stands there: who is gone would be folded, and this one's file removed.
    monkeypatch.setattr("ws_lifecycle_metrics.store.reader.is_gone", lambda *_: False)
    base = real_segment(tmp_path)
    good = start_worker(tmp_path)
    open_connection(good, "/good")
    alone, wanted = take(tmp_path).totals, parts(read(tmp_path, good.segment.name))
    source = Source(config(tmp_path))
    chance = random.Random(20)
    refused = 0
    path = place(tmp_path) / "1-mutant.segment"
    with path.open("w+b", buffering=0) as file:
        path.chmod(0o600)
        assert try_lock(file.fileno(), exclusive=True)  # alive, so that nothing folds it
        for number in range(mutations):
            file.truncate(0)
            os.pwrite(file.fileno(), mutate(base, chance), 0)
            snapshot = source.take()
            if snapshot.skipped:
                refused += 1
                assert snapshot.totals == alone
            else:
                found = next(w for w in snapshot.workers if w.name == good.segment.name)
                assert parts(found) == wanted
                snapshot.connections()
            if number % 20 == 0:
                text, _ = render(lambda s=snapshot: s)
                assert b"ws_lifecycle_metrics_collector_success 1.0" in text
                text.decode()
    assert mutations / 20 < refused < mutations
    good.close()


def test_the_names_in_a_segment_are_made_harmless(tmp_path):
    data = real_segment(tmp_path)
    assert data.count(b"/bad/feed") == 1
    path = place(tmp_path) / "1-named.segment"
    path.write_bytes(data.replace(b"/bad/feed", b"\x1b[2J\n\xff\xe2\x80!"))
    path.chmod(0o600)
    text = render(lambda: take(tmp_path))[0].decode()
    assert not {c for c in text if not c.isprintable()} - {"\n"}
    assert 'http_route="\\\\x1b[2J\\\\n\ufffd' in text


def test_damaged_segments_of_the_dead_are_folded_or_left(tmp_path, caplog):
    caplog.set_level("ERROR")
    base = real_segment(tmp_path)
    good = start_worker(tmp_path)
    open_connection(good, "/good")
    chance = random.Random(7)
    for number in range(80):
        path = place(tmp_path) / f"{number}-dead.segment"
        path.write_bytes(mutate(base, chance))
        path.chmod(0o600)
        text, _ = render(lambda: take(tmp_path))
        assert b"ws_lifecycle_metrics_collector_success 1.0" in text
        path.unlink(missing_ok=True)
    assert archive.load(Directory(place(tmp_path))).totals
    good.close()


@pytest.mark.parametrize("name", ["lock", ".archive.json", "slot-0"])
@pytest.mark.parametrize("make", [fifo, directory, symlink, sparse(1 << 30)])
def test_what_is_no_segment_may_be_anything(tmp_path, name, make):
    place(tmp_path).mkdir(parents=True, mode=0o700)
    dead = start_worker(tmp_path)
    open_connection(dead)
    die(dead)
    path = place(tmp_path) / name
    path.unlink(missing_ok=True)
    make(path, bytearray(b"?"))
    for _ in range(2):
        snapshot = take(tmp_path)
        assert value(snapshot, catalog.LOST_CONNECTIONS) == 1
        assert value(snapshot, catalog.COLLECTOR_SUCCESS) == 1
    assert not snapshot.skipped


@pytest.mark.parametrize("lack", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
def test_what_cannot_be_opened_for_want_of_means_is_not_left_out(tmp_path, lack):
    class Poor(Directory):
        def open(self, name: str, flags: int) -> int:
            raise OSError(lack, os.strerror(lack))

    worker = start_worker(tmp_path)
    with Poor(place(tmp_path)) as poor, pytest.raises(OSError, match=os.strerror(lack)):
        Reader().read(poor)
    worker.close()


def test_a_file_that_shrinks_under_the_reader_is_skipped(tmp_path, monkeypatch):
    worker = start_worker(tmp_path)
    path = segments(tmp_path)[0]
    check = archive.check_file

    def shrink(status: os.stat_result) -> int:
        os.truncate(path, at.HEADER_WORDS * at.WORD)
        return check(status)

    monkeypatch.setattr("ws_lifecycle_metrics.store.reader.check_file", shrink)
    assert take(tmp_path).skipped == {path.name: "shorter than it says"}
    worker.segment.abandon()


def test_a_segment_that_grows_under_the_reader_is_read(tmp_path, monkeypatch):
    worker = start_worker(tmp_path)
    open_connection(worker, "/chat")
    is_held = reader.is_held

    def grow(fd: int) -> bool:
        for number in range(40):
            worker.route(f"/{number}")
        return is_held(fd)

    monkeypatch.setattr(reader, "is_held", grow)
    size = segments(tmp_path)[0].stat().st_size
    snapshot = take(tmp_path)
    assert segments(tmp_path)[0].stat().st_size > size
    assert not snapshot.skipped
    assert value(snapshot, catalog.HANDSHAKES, "/chat", "accepted") == 1
    worker.close()


def test_a_worker_of_whom_no_lock_tells_is_alive(tmp_path, monkeypatch):
    worker = start_worker(tmp_path)
    open_connection(worker)
    flock = fcntl.flock

    def no_shared_locks(fd: int, operation: int) -> None:
        if operation & fcntl.LOCK_SH:
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
        flock(fd, operation)

    monkeypatch.setattr(fcntl, "flock", no_shared_locks)
    for _ in range(2):
        snapshot = take(tmp_path)
        assert value(snapshot, catalog.LOST_CONNECTIONS) == 0
        assert value(snapshot, catalog.ACTIVE_CONNECTIONS) == 1
    assert segments(tmp_path)
    worker.close()


def test_without_any_locks_memory_serves(tmp_path, monkeypatch):
    def no_locks(fd: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    with Directory(place(tmp_path), create=True) as directory:
        monkeypatch.setattr(fcntl, "flock", no_locks)
        with pytest.raises(OSError, match=os.strerror(errno.ENOLCK)):
            directory.take_slot()
        worker = current(config(tmp_path))
        assert not worker.segment.shared
        assert directory.segments() == directory.drafts() == []
