"""What a scan tells of the connections that it finds stuck, and where it looks."""

from __future__ import annotations

import pytest

from tests.watchdog.support import NOW, add_record, make_worker, state
from ws_lifecycle_metrics.store import layout as at
from ws_lifecycle_metrics.store.layout import NS
from ws_lifecycle_metrics.watchdog.scan import TOLD_EVERY, Scanner
from ws_lifecycle_metrics.watchdog.sidefile import MOST_CONNECTIONS

OPEN = state("accepted", "connected")
UNANSWERED = state("unanswered", "connected")
GONE = state("accepted", "disconnected")


class Held:
    """A conversation, as the watchdog sees it."""

    awaitable = None

    def __init__(self) -> None:
        self.found: list[str] = []
        self.cancelled = 0

    def found_stuck(self, reason: str) -> tuple[int, int]:
        self.found.append(reason)
        return 1, 2

    def cancel(self) -> None:
        self.cancelled += 1


STUCK = [
    ("handshake", UNANSWERED, {}, "OPENED_AT"),
    ("send_blocked", OPEN, {"SENDING": 1}, "SENT_AT"),
    ("closing", GONE, {}, "STATE_AT"),
    ("receive_withheld", state("closed", "connected"), {"RECEIVING": 1}, "STATE_AT"),
    ("orphan_subscription", at.ORPHANED, {}, "STATE_AT"),
]


@pytest.mark.parametrize(("reason", "word", "words", "since"), STUCK, ids=[c[0] for c in STUCK])
def test_the_time_is_that_since_it_waits_for_this(reason, word, words, since):
    worker = make_worker()
    times = {"OPENED_AT": NOW - 5 * NS, "STATE_AT": NOW - 3 * NS, "SENT_AT": NOW - 2 * NS}
    add_record(worker, word, **words, **times | {since: NOW})
    [event] = Scanner(worker).scan(NOW + 40 * NS).events
    assert (event.reason, event.seconds) == (reason, 40.0)


def test_what_outlives_the_shutdown_is_stuck_since_then():
    worker = make_worker()
    add_record(worker, OPEN)
    worker.segment.header[at.DRAINING_SINCE] = NOW + 5 * NS
    [event] = Scanner(worker).scan(NOW + 105 * NS).events
    assert (event.reason, event.seconds) == ("draining", 100.0)


@pytest.mark.parametrize(("reason", "word", "words", "_"), STUCK[:4], ids=[c[0] for c in STUCK[:4]])
def test_what_is_stuck_is_told_so_and_cancelled_in_closing_alone(reason, word, words, _):
    worker, held = make_worker(cancel_stuck_closing=True), Held()
    worker.live[add_record(worker, word, **words)[at.SERIAL]] = held
    [event] = Scanner(worker).scan(NOW + 40 * NS).events
    assert (held.found, event.trace) == ([reason], (1, 2))
    assert held.cancelled == (reason == "closing")


def test_where_connections_wait_is_looked_at_every_now_and_then():
    worker = make_worker()
    scanner = Scanner(worker)
    assert scanner.scan(NOW).connections is None  # there is none
    worker.live[1] = Held()
    looks = [NOW + second * NS for second in range(12)]
    looked = [scanner.scan(now).connections is not None for now in looks]
    every = TOLD_EVERY // NS
    assert looked == [second % every == 0 for second in range(12)]


def test_where_a_connection_waits_is_looked_at_once_it_is_stuck():
    worker = make_worker()
    worker.live[1] = worker.live[2] = Held()
    scanner = Scanner(worker)
    first = NOW + 9 * NS
    assert scanner.scan(first).connections.keys() == {1, 2}
    worker.live.clear()  # what is left has ended, but for its subscription
    add_record(worker, OPEN, SENDING=1)
    looks = [scanner.scan(first + second * NS).connections for second in (0, 1, 2, 5, 6)]
    assert looks == [None, {1: looks[1][1]}, None, None, {1: looks[1][1]}]


def test_no_more_connections_are_looked_at_than_are_told():
    worker = make_worker()
    for _ in range(MOST_CONNECTIONS + 20):
        worker.live[add_record(worker, UNANSWERED)[at.SERIAL]] = Held()
    found = Scanner(worker).scan(NOW + 40 * NS)
    assert len(found.events) == MOST_CONNECTIONS + 20
    assert len(found.connections) == MOST_CONNECTIONS


def test_of_many_connections_the_stuck_ones_are_told():
    worker = make_worker()
    for word in [OPEN] * MOST_CONNECTIONS + [UNANSWERED]:
        worker.live[add_record(worker, word)[at.SERIAL]] = Held()
    found = Scanner(worker).scan(NOW + 40 * NS)
    assert found.events[0].connection in found.connections
