"""What a worker writes, a reader finds: round trips, growth, and sums that never fall."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.store.support import (
    ACCEPTED,
    OPEN_STATE,
    ROOT,
    config,
    counters,
    environment,
    fallen,
    open_connection,
    place,
    python,
    segments,
    start_worker,
    take,
    value,
)
from ws_lifecycle_metrics import catalog
from ws_lifecycle_metrics.labels import safe_label
from ws_lifecycle_metrics.store import layout as at
from ws_lifecycle_metrics.store.directory import Directory
from ws_lifecycle_metrics.store.reader import Contents, Reader, decode
from ws_lifecycle_metrics.store.worker import Worker
from ws_lifecycle_metrics.store.writer import FIRST_EXTENT, Segment


@pytest.fixture
def worker(tmp_path):
    worker = start_worker(tmp_path)
    yield worker
    worker.close()


def read_one(base: Path) -> Contents:
    with Directory(place(base)) as directory:
        (contents,) = Reader().read(directory)
    return contents


def test_a_reader_finds_what_the_writer_wrote(tmp_path, worker):
    worker.route("/chat/{room}").words[ACCEPTED] = 3
    worker.count_internal_error()
    number = worker.subprotocol("chat.v2")
    record = open_connection(worker, "/chat/{room}")
    record[at.SUBPROTOCOL] = number
    found = read_one(tmp_path)
    assert found.alive
    assert found.uuid == worker.segment.uuid
    assert [name for name, _ in found.routes.values()] == ["other", "/chat/{room}"]
    assert found.subprotocols == {number - 1: "chat.v2"}
    snapshot = take(tmp_path)
    assert value(snapshot, catalog.HANDSHAKES, "/chat/{room}", "accepted") == 4
    assert value(snapshot, catalog.INTERNAL_ERRORS) == 1
    assert value(snapshot, catalog.ACTIVE_CONNECTIONS, "/chat/{room}", "chat.v2", "open") == 1


def test_a_counter_of_time_is_read_in_seconds(tmp_path, worker):
    stalls = at.WORKER_BLOCK[catalog.LOOP_STALL_SECONDS.name].offsets
    worker.words[stalls["stuck",]] = 3 * at.NS // 2
    assert value(take(tmp_path), catalog.LOOP_STALL_SECONDS, "0", "stuck") == 1.5


def test_it_grows_over_many_extents_and_nothing_moves(tmp_path, worker):
    records = []
    for number in range(3000):
        record = open_connection(worker, f"/{number % 40}")
        record[at.SERIAL] = number
        records.append(record)
    assert len(worker.segment._extents) > 4
    for number, record in enumerate(records):
        record[at.RECEIVED_TEXT] += number  # through the view that was had at first
    connections = take(tmp_path).connections()
    assert {c.id: c.received_messages for c in connections} == {n: n for n in range(3000)}
    assert segments(tmp_path)[0].stat().st_size % FIRST_EXTENT == 0


def test_it_ends_growing_where_no_reader_would_follow(tmp_path, monkeypatch):
    monkeypatch.setattr(at, "MAX_BYTES", 4 * FIRST_EXTENT)
    worker = start_worker(tmp_path)
    for _ in range(2000):
        record = open_connection(worker)
        record[at.RECEIVED_TEXT] += 1
    assert segments(tmp_path)[0].stat().st_size <= 4 * FIRST_EXTENT
    snapshot = take(tmp_path)
    assert not snapshot.skipped
    assert value(snapshot, catalog.HANDSHAKES, "/chat", "accepted") == 2000
    assert value(snapshot, catalog.STORAGE_DEGRADED) == 1
    worker.close()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(), max_size=12))
def test_names_of_any_unicode_come_back(names):
    worker = Worker(config(Path("/unused"), max_routes=20), None)
    for name in names:
        worker.route(name)
        worker.subprotocol(name)
    found = decode("", worker.segment.contents(), alive=True)
    wanted = list(dict.fromkeys(["other", *map(safe_label, names)]))
    assert [name for name, _ in found.routes.values()] == wanted
    assert set(found.subprotocols.values()) == set(map(safe_label, names))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.text(max_size=300), st.integers(0, 20_000)), max_size=20))
def test_blocks_of_any_size_and_name_come_back(blocks):
    segment = Segment()
    segment.add_block(at.BlockKind.WORKER, at.WORKER_BLOCK_WORDS)
    for name, words in blocks:
        segment.add_block(at.BlockKind.ROUTE, at.ROUTE_BLOCK_WORDS + words, name)
    found = decode("", segment.contents(), alive=True)
    assert [name for name, _ in found.routes.values()] == [safe_label(n) for n, _ in blocks]
    for (_, wanted), (_, words) in zip(blocks, found.routes.values(), strict=True):
        assert len(words) >= at.ROUTE_BLOCK_WORDS + wanted


@pytest.mark.parametrize("most", [0, 1, 70], ids="max_connections={}".format)
def test_beyond_max_connections_they_are_still_counted(tmp_path, caplog, most):
    worker = start_worker(tmp_path, max_connections=most)
    for _ in range(100):
        record = open_connection(worker)
        record[at.RECEIVED_TEXT] += 1
        record[at.RECEIVED_BYTES] += 5
        held = [open_connection(worker) for _ in range(most and 2)]
        for each in (record, *held):
            worker.route("/chat").give_back(each)
    many = [open_connection(worker) for _ in range(most + 50)]
    for record in many:
        record[at.SENT_TEXT] += 1
    assert value(take(tmp_path), catalog.ACTIVE_CONNECTIONS) == most
    for record in many:
        worker.route("/chat").give_back(record)
    snapshot = take(tmp_path)
    assert value(snapshot, catalog.ACTIVE_CONNECTIONS) == 0
    assert value(snapshot, catalog.RECEIVED_MESSAGES, "/chat", "text") == 100
    assert value(snapshot, catalog.RECEIVED_BYTES, "/chat") == 500
    assert value(snapshot, catalog.SENT_MESSAGES, "/chat", "text") == most + 50
    assert value(snapshot, catalog.STORAGE_DEGRADED) == 1
    assert [r.getMessage() for r in caplog.records if f"max_connections={most}" in r.getMessage()]
    worker.close()


def test_the_cap_is_of_connections_that_are_open_whatever_their_routes(tmp_path):
    worker = start_worker(tmp_path, max_connections=100)
    for record in [open_connection(worker, "/peak") for _ in range(90)]:
        worker.route("/peak").give_back(record)
    for n in range(10):
        for _ in range(10):
            open_connection(worker, f"/{n}")
    assert value(take(tmp_path), catalog.ACTIVE_CONNECTIONS) == 100
    assert value(take(tmp_path), catalog.STORAGE_DEGRADED) == 0
    worker.close()


def test_a_route_beyond_the_cap_is_other_and_counted(tmp_path):
    worker = start_worker(tmp_path, max_routes=3, routes=("/kept",))
    names = [worker.route(f"/{n}").name for n in range(5)]
    assert names == ["/0", "/1", "other", "other", "other"]
    assert worker.route("/kept").name == "/kept"
    assert value(take(tmp_path), catalog.LABEL_OVERFLOW, "http_route") == 3
    worker.close()


WORDS = {
    at.RECEIVED_TEXT: (catalog.RECEIVED_MESSAGES, ("text",)),
    at.RECEIVED_BINARY: (catalog.RECEIVED_MESSAGES, ("binary",)),
    at.RECEIVED_BYTES: (catalog.RECEIVED_BYTES, ()),
    at.SENT_TEXT: (catalog.SENT_MESSAGES, ("text",)),
    at.SLOW_BINARY: (catalog.SENT_MESSAGES, ("binary",)),
    at.SENT_BYTES: (catalog.SENT_BYTES, ()),
}


def seen(record: memoryview) -> bool:
    """Whether it lies in the segment, and not in memory of this process alone."""
    return type(record.obj) is not bytearray


ROUTES = st.sampled_from(["/a", "/b", "/c/{id}", "/d", None])


class Books(RuleBasedStateMachine):
    """Whatever a worker does, a reader's sums are those of plain counting, and never fall."""

    @initialize(most=st.sampled_from([0, 3, 65, 10_000]), routes=st.integers(0, 5))
    def start(self, most, routes):
        self.base = tempfile.TemporaryDirectory()
        self.worker = start_worker(Path(self.base.name), max_connections=most, max_routes=routes)
        self.most = most
        self.open: list[tuple[str, memoryview]] = []
        self.counts: Counter[object] = Counter()
        self.last: dict[object, float] = {}

    def teardown(self):
        if hasattr(self, "worker"):
            self.worker.close()
            self.base.cleanup()

    @rule(name=ROUTES, number=st.sampled_from([1, 2, 70]))
    def begin(self, name, number):
        route = self.worker.route(name)
        for _ in range(number):
            record = route.take()
            assert record[at.STATE] == 0
            record[at.STATE] = OPEN_STATE
            self.open.append((route.name, record))
            route.words[ACCEPTED] += 1
        self.counts[catalog.HANDSHAKES, (route.name, "accepted")] += number

    @precondition(lambda self: self.open)
    @rule(data=st.data(), word=st.sampled_from(list(WORDS)), number=st.integers(1, 1 << 40))
    def count(self, data, word, number):
        name, record = self.open[data.draw(st.integers(0, len(self.open) - 1))]
        record[word] += number
        if seen(record):
            metric, labels = WORDS[word]
            self.counts[metric, (name, *labels)] += number

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def end(self, data):
        name, record = self.open.pop(data.draw(st.integers(0, len(self.open) - 1)))
        if not seen(record):  # only now a reader can know what it has counted
            for word, (metric, labels) in WORDS.items():
                self.counts[metric, (name, *labels)] += record[word]
        self.worker.route(name).give_back(record)

    @rule()
    def fail(self):
        self.worker.count_internal_error()
        self.counts[catalog.INTERNAL_ERRORS, ()] += 1

    @rule(name=st.sampled_from(["x", "graphql-ws", "\x1b[2J"]))
    def subprotocol(self, name):
        assert self.worker.subprotocol(name)

    @invariant()
    def the_books_agree(self):
        if not hasattr(self, "worker"):
            return
        snapshot = take(Path(self.base.name))
        families = {f.metric: f.series for f in snapshot.families()}
        for (metric, labels), number in self.counts.items():
            assert families[metric].get(labels, 0) == number
        active = sum(seen(record) for _, record in self.open)
        assert value(snapshot, catalog.ACTIVE_CONNECTIONS) == active
        assert active <= self.most
        now = counters(snapshot)
        assert not fallen(self.last, now)
        self.last = now


Books.TestCase.settings = settings(
    max_examples=25, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
)
TestBooks = Books.TestCase


def test_a_reader_in_another_time_namespace_leaves_the_living_alone(worker, tmp_path):
    worker.route("/chat").words[ACCEPTED] += 3
    read = """
        import sys
        from pathlib import Path
        from tests.store.support import take
        from ws_lifecycle_metrics.store import layout as at
        print([contents.header[at.PID] for contents in take(Path(sys.argv[1])).workers])
    """
    shifted = ["unshare", "--time", "--boottime", "100000", "--monotonic", "100000", "--fork"]
    try:
        done = subprocess.run(
            [*shifted, *python(read, tmp_path)],
            env=environment(), cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    except FileNotFoundError:
        pytest.skip("no unshare here")
    if "unshare" in done.stderr:
        pytest.skip(f"no time namespace here: {done.stderr.strip()}")
    assert done.stdout == f"[{os.getpid()}]\n", done.stderr
    assert value(take(tmp_path), catalog.HANDSHAKES, "/chat", "accepted") == 3
    assert value(take(tmp_path), catalog.LOST_CONNECTIONS) == 0
