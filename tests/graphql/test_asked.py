"""What a client asked for: read from its frames, and matched with what begins."""

from __future__ import annotations

import pytest

from ws_lifecycle_metrics.integrations.asked import (
    MOST_PARSED,
    MOST_WAITING,
    PREFIX,
    Asked,
    read_frame,
)

AT_MOST = '{"payload":{},"type":"subscribe","id":"1"}'.ljust(MOST_PARSED)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"id":"1","type":"subscribe","payload":{}}', ("subscribe", '"1"')),
        ('{ "type" : "start" , "id" : "a b\\"c" , "payload" : {}}', ("start", '"a b\\"c"')),
        ('{"type":"complete","id":7}', ("complete", "7")),
        ('{"type":"stop"}', ("stop", None)),
        ('{"type":"connection_init","payload":{"id":"x"}}', ("connection_init", None)),
        ('{"type":"subscribe","payload":{"id":"x"},"id":"1"}', ("subscribe", '"1"')),
        ('{"id":"ä","payload":{"type":"complete"},"type":"start"}', ("start", '"ä"')),
        ('{"payload":{"type":"complete"},"id":1,"type":"subscribe"}', ("subscribe", "1")),
        ('{"payload":{"id":"x"},"type":"connection_init"}', ("connection_init", None)),
        ('{"payload":{"type":"complete"},"type":"subscribe"}', ("subscribe", None)),
        ('{"payload":{},"id":["1"],"type":"subscribe"}', ("subscribe", None)),
        ('{"payload":{},"type":["subscribe"]}', None),
        ('{"payload":{},"type":"pong"}', None),
        ('{"type":"ping","payload":{}}', None),
        ('["payload","type","subscribe"]', None),
        ('{"payload":', None),
        ('{"payload":' + "[" * 8000, None),
        ('{"type":"subscribe","payload":{', ("subscribe", None)),
        (AT_MOST, ("subscribe", '"1"')),
        (AT_MOST + " ", None),
        ('{"type":"ping"}', None),
        ('{"filler":"' + "x" * PREFIX + '","type":"complete"}', None),
        ('{"type":"complete","id":"' + "x" * PREFIX + '"}', ("complete", None)),
        ("", None),
    ],
)
def test_type_and_id_are_found_in_any_order(
    text: str, found: tuple[str, str | None] | None
) -> None:
    assert read_frame(text) == found


def test_operations_begin_in_the_order_in_which_they_were_asked_for() -> None:
    asked = Asked()
    for id in "abc":
        asked.subscribe(id)
    assert [asked.begin().id for _ in "abc"] == ["a", "b", "c"]
    assert asked.begin() is None


def test_what_was_completed_in_one_breath_is_passed_over_where_another_waits() -> None:
    asked = Asked()
    asked.subscribe("a")
    asked.subscribe("b")
    asked.complete("a")
    second = asked.begin()
    assert (second.id, second.completed) == ("b", False)
    first = asked.begin()  # a framework that reads ahead
    assert (first.id, first.completed) == ("a", True)


def test_without_an_id_a_complete_is_that_of_the_one_whose_id_was_not_seen() -> None:
    asked = Asked()
    asked.subscribe(None)
    unseen = asked.begin()
    asked.complete("a")
    assert unseen.completed


def test_an_id_that_is_given_again_is_the_new_ones() -> None:
    asked = Asked()
    asked.subscribe("a")
    old = asked.begin()
    asked.subscribe("a")
    new = asked.begin()
    asked.end(old)
    asked.complete("a")
    assert (old.completed, new.completed) == (False, True)
    asked.end(new)
    assert not asked._by_id


def test_what_never_begins_is_bounded() -> None:
    asked = Asked()
    asked.subscribe("first")
    running = asked.begin()
    for number in range(10 * MOST_WAITING):
        asked.subscribe(str(number))
    assert len(asked._waiting) == MOST_WAITING
    assert len(asked._by_id) == MOST_WAITING + 1
    asked.complete("first")
    assert running.completed
    asked.forget_waiting()
    assert list(asked._by_id) == ["first"]
