"""When a connection is stuck, and why: word by word, without a clock."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.watchdog.support import NOW, add_record, make_worker, state
from ws_lifecycle_metrics.catalog import STUCK_REASONS
from ws_lifecycle_metrics.protocol import STATES
from ws_lifecycle_metrics.store import layout as at
from ws_lifecycle_metrics.store.layout import NS
from ws_lifecycle_metrics.watchdog.stuck import find, reason

OPEN = state("accepted", "connected")
SENDING = {"SENDING": 1, "SENT_TEXT": 1, "SLOW_BINARY": 1}
RECEIVING = {"RECEIVING": 1}

CASES = [
    ("no answer", state("unanswered", "connected"), {}, "handshake", 10),
    ("not even a connect", state("unanswered", "new"), {}, "handshake", 10),
    ("denial without end", state("denying", "connected"), {}, "handshake", 10),
    ("a send that does not return", OPEN, SENDING, "send_blocked", 10),
    ("the accept does not return", OPEN, {"SENDING": 1}, "send_blocked", 10),
    ("own close does not return", state("closed", "connected"), SENDING, "send_blocked", 10),
    ("after the disconnect", state("accepted", "disconnected"), {}, "closing", 30),
    ("after a lost send", state("accepted", "lost"), {}, "closing", 30),
    ("receives again after it", state("accepted", "disconnected"), RECEIVING, "closing", 30),
    ("client gone in the handshake", state("unanswered", "disconnected"), {}, "closing", 30),
    ("runs on after its close", state("closed", "connected"), {}, "closing", 30),
    ("no disconnect after close", state("closed", "connected"), RECEIVING, "receive_withheld", 30),
    ("none after rejection", state("rejected", "connected"), RECEIVING, "receive_withheld", 30),
    ("subscription without socket", at.ORPHANED, {}, "orphan_subscription", 5),
]


@pytest.mark.parametrize(
    ("word", "words", "expected", "after"), [case[1:] for case in CASES], ids=[c[0] for c in CASES]
)
def test_at_its_threshold_and_not_before(word, words, expected, after):
    worker = make_worker()
    record = add_record(worker, word, **words)
    header = worker.segment.header
    limit = NOW + after * NS
    assert reason(record, limit - 1, header) is None
    assert reason(record, limit, header) == expected
    assert reason(record, NOW - 3600 * NS, header) is None  # a clock that stands before the record


def test_every_reason_of_a_worker_has_a_case():
    assert {case[3] for case in CASES} | {"draining", "ghost"} == set(STUCK_REASONS)


def test_an_idle_connection_is_never_stuck():
    worker = make_worker()
    record = add_record(worker, OPEN, SENT_TEXT=2, RECEIVING=1)
    assert reason(record, NOW + 10**6 * NS, worker.segment.header) is None


def test_an_idle_connection_is_stuck_when_the_shutdown_began_long_ago():
    worker = make_worker(stuck_draining=7.0)
    record = add_record(worker, OPEN, moment=NOW - 3600 * NS)
    header = worker.segment.header
    header[at.DRAINING_SINCE] = NOW
    assert reason(record, NOW + 7 * NS - 1, header) is None
    assert reason(record, NOW + 7 * NS, header) == "draining"


def test_a_later_send_does_not_hide_an_earlier_state():
    worker = make_worker()
    record = add_record(worker, state("closed", "connected"), RECEIVING=1)
    record[at.SENT_AT] = NOW + 25 * NS
    assert reason(record, NOW + 30 * NS, worker.segment.header) == "receive_withheld"


def test_among_idle_connections_the_one_that_sends_is_found():
    worker = make_worker()
    made = [add_record(worker, OPEN, SENT_TEXT=n % 3) for n in range(50)]
    made[30][at.SENDING] = 1
    [(_, block)] = worker.record_blocks
    found = list(find(block, NOW + 10 * NS, worker.segment.header))
    assert [(record[at.SERIAL], why) for record, why in found] == [(31, "send_blocked")]


states = st.sampled_from([0, at.ORPHANED, *(s.code + 1 for s in STATES)])
records = st.lists(
    st.tuples(states, st.integers(0, 90), st.integers(0, 2), st.integers(0, 2), st.integers(0, 1)),
    max_size=70,
)


@given(records, st.booleans())
def test_scanning_by_columns_finds_what_looking_at_each_record_does(found, draining):
    worker = make_worker()
    header = worker.segment.header
    header[at.DRAINING_SINCE] = draining
    now = NOW + 100 * NS
    made = [
        add_record(worker, word, now - age * NS, SENDING=calls, SENT_TEXT=sent, RECEIVING=rx)
        for word, age, calls, sent, rx in found
    ]
    expected = [(r[at.SERIAL], why) for r in made if (why := reason(r, now, header))]
    seen = [
        (record[at.SERIAL], why)
        for _, block in worker.record_blocks
        for record, why in find(block, now, header)
    ]
    assert sorted(seen) == sorted(expected)
