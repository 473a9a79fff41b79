"""Exemplars in the segments: the latest of each bucket, never a torn or a foreign one."""

from __future__ import annotations

import json
import threading

import pytest

from ws_lifecycle_metrics import Config, catalog
from ws_lifecycle_metrics.store import exemplars, workers
from ws_lifecycle_metrics.store import layout as at
from ws_lifecycle_metrics.store.archive import NAME
from ws_lifecycle_metrics.store.directory import service_path
from ws_lifecycle_metrics.store.layout import OPERATION_BLOCK, ROUTE_BLOCK, Stored
from ws_lifecycle_metrics.store.snapshot import Source

HISTOGRAM = ROUTE_BLOCK[catalog.SEND_DURATION.name].histogram()
KEY = (catalog.SEND_DURATION.name, ("other",))
MS = 1_000_000
TRACE = (2**128 - 1, 2**64 - 1)


@pytest.fixture
def words():
    return memoryview(bytearray(at.ROUTE_BLOCK_WORDS * at.WORD)).cast("Q")


@pytest.fixture
def config(tmp_path):
    return Config(directory=str(tmp_path), service="exemplars")


def test_what_was_written_is_read(words):
    exemplars.write(HISTOGRAM, words, 3 * MS, TRACE, 5_000_000_000)
    start = HISTOGRAM.exemplars_at + at.EXEMPLAR_WORDS
    expected = exemplars.Exemplar(*TRACE, value=0.003, timestamp=5.0)
    assert exemplars.read(words, start) == (3 * MS, expected)
    assert exemplars.read(words, HISTOGRAM.exemplars_at) is None


@pytest.mark.parametrize("word", range(at.EXEMPLAR_WORDS))
def test_a_torn_one_is_none(words, word):
    exemplars.write(HISTOGRAM, words, 3 * MS, (1, 2), 5)
    old = words.tolist()
    exemplars.write(HISTOGRAM, words, 4 * MS, (3 << 64 | 9, 5), 6)
    start = HISTOGRAM.exemplars_at + at.EXEMPLAR_WORDS
    words[start + word] = old[start + word]
    assert exemplars.read(words, start) is None


def seen(config):
    (family,) = [
        family
        for family in Source(config).take().families()
        if family.metric is catalog.SEND_DURATION
    ]
    return family.series[("other",)].exemplars


def test_one_in_a_bucket_that_is_not_its_own_is_left_out(config):
    words = workers.current(config).route(None).words
    exemplars.write(HISTOGRAM, words, 3 * MS, (1, 2), 5)
    assert [one is not None for one in seen(config)] == [False, True, *[False] * 7]
    start = HISTOGRAM.exemplars_at
    moved = words[start + at.EXEMPLAR_WORDS : start + 2 * at.EXEMPLAR_WORDS].tolist()
    for offset, value in enumerate(moved):
        words[start + 7 * at.EXEMPLAR_WORDS + offset] = value
    assert [one is not None for one in seen(config)] == [False, True, *[False] * 7]


def test_of_several_workers_the_latest_is_shown(config):
    def elsewhere():
        words = workers.current(config).route(None).words
        exemplars.write(HISTOGRAM, words, 3 * MS, (7, 7), 9)
        shown.append(seen(config)[1].trace_id)

    shown: list[int] = []
    exemplars.write(HISTOGRAM, workers.current(config).route(None).words, 2 * MS, (1, 1), 5)
    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join(30)
    assert shown == [7]
    exemplars.write(HISTOGRAM, workers.current(config).route(None).words, 2 * MS, (3, 3), 11)
    assert seen(config)[1].trace_id == 3


def test_without_one_a_histogram_says_so_cheaply(config):
    workers.current(config)
    assert seen(config) == ()


def spans_of(stored: Stored) -> list[range]:
    found = [range(o, o + stored.size) for o in stored.offsets.values()]
    room = at.EXEMPLAR_WORDS * (stored.size - 1)
    return found + [range(o, o + room) for o in stored.exemplars.values()]


@pytest.mark.parametrize("block", [ROUTE_BLOCK, OPERATION_BLOCK], ids=["route", "operation"])
def test_no_words_overlap(block):
    taken = [word for stored in block.values() for words in spans_of(stored) for word in words]
    assert len(taken) == len(set(taken))
    if block is ROUTE_BLOCK:
        assert max(taken) == at.ROUTE_BLOCK_WORDS - 1


def test_totals_count_since_the_first_worker_though_it_is_gone(config):
    made = []

    def elsewhere():
        made.append(int(workers.current(config).segment.header[at.CREATED_WALL]))

    for _ in range(3):  # each ends before the next begins, and is folded by it
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join(30)
    workers.current(config)
    assert Source(config).take().since == made[0] < made[1]
    path = service_path(config.directory, config.service) / NAME
    archived = json.loads(path.read_text())
    assert archived["since"] == made[0]
    for broken in (-1, "soon", None, 2**100):
        path.write_text(json.dumps({**archived, "since": broken, "generation": 99}))
        assert Source(config).take().since > made[0]
