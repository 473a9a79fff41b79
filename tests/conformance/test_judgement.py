"""Who is blamed for what, by the entries of an application and the lines of its client."""

from __future__ import annotations

import pytest

from ws_lifecycle_metrics.conformance.connection import Seen
from ws_lifecycle_metrics.conformance.judgement import judge, not_reached
from ws_lifecycle_metrics.conformance.result import Line, Result

TIMED_OUT = Seen(8.0, "answer to the handshake: not within 8 s", "server.handshake-unanswered")
RESET = Seen(1.0, "RST")
DISCONNECT = "websocket.disconnect"


def entry(at, what, event="", *rules, **detail):
    return {"at": at, "what": what, "event": event, "rules": list(rules), "detail": detail}


def answer(at, event):
    return [entry(0.0, "scope"), entry(at, "send", event), entry(at, "sent", event)]


@pytest.mark.parametrize(
    ("entries", "blamed"),
    [
        (answer(1.0, "websocket.accept"), "server"),
        (answer(1.0, "websocket.close"), "server"),
        (answer(1.0, "websocket.http.response.start"), "server"),
        (answer(7.9, "websocket.accept"), "app"),  # it may be on its way
        (answer(9.0, "websocket.accept"), "app"),
        (answer(1.0, "websocket.send"), "app"),
        ([entry(0.0, "scope"), entry(1.0, "send", "websocket.accept")], "app"),
        ([], "app"),
    ],
    ids=["accept", "reject", "denial", "at the end", "too late", "no answer", "not taken", "none"],
)
def test_who_left_a_handshake_without_an_answer(entries, blamed):
    assert list(judge(entries, [TIMED_OUT], exited=False)) == [f"{blamed}.handshake-unanswered"]


@pytest.mark.parametrize(
    ("what", "at", "blamed"),
    [
        ("received", 4.0, ["app.handshake-unanswered"]),
        ("returned", 6.0, ["app.handshake-unanswered"]),
        ("returned", 4.0, []),
        ("raised", 4.0, []),
        ("send", 4.0, []),
    ],
)
def test_a_server_that_ends_a_handshake_first_may_have_waited_long_enough(what, at, blamed):
    entries = [entry(0.0, "scope"), entry(at, what), entry(9.0, "returned")]
    assert list(judge(entries, [Seen(5.0, "answer none")], exited=False)) == blamed


@pytest.mark.parametrize("at", [4.8, 5.2], ids=["before the client", "after it"])
def test_an_application_that_ends_since_the_server_lost_patience_did_not_answer(at):
    entries = [entry(at, "received", DISCONNECT), entry(at + 0.1, "returned")]
    blamed = list(judge(entries, [Seen(5.0, "answer none")], exited=False))
    assert blamed == ["app.handshake-unanswered"]


@pytest.mark.parametrize(
    ("calls", "blamed"),
    [
        ([entry(1, "send")], ["server.send-never-returns"]),
        ([entry(1, "receive")], ["server.disconnect-not-delivered"]),
        (
            [entry(1, "receive"), entry(2, "received", DISCONNECT), entry(3, "receive")],
            ["app.never-ends"],
        ),
        ([entry(1, "receive"), entry(2, "received", "websocket.receive")], ["app.never-ends"]),
        ([entry(1, "returned")], []),
    ],
    ids=["send", "receive", "receive after the disconnect", "its own code", "ended"],
)
def test_who_keeps_an_application_from_ending(calls, blamed):
    assert list(judge([entry(0, "scope"), *calls], [RESET], exited=False)) == blamed


def test_an_application_that_ends_with_its_process_was_told():
    calls = [entry(0, "scope"), entry(1, "receive"), entry(2, "received", DISCONNECT)]
    assert not list(judge(calls, [RESET], exited=True))


def test_an_illegal_frame_is_the_servers():
    seen = [Seen(1.0, "received a masked frame", "server.illegal-frame")]
    assert list(judge([entry(0, "returned")], seen, exited=False)) == ["server.illegal-frame"]


@pytest.mark.parametrize("told", [(), ("app.receive-concurrent",)], ids=["untold", "two at once"])
def test_a_receive_that_raises_is_the_servers_only_where_it_is_specified(told):
    entries = [entry(0, "receive", "", *told), entry(1, "receive raised", error="RuntimeError")]
    entries.append(entry(2, "raised"))
    wrong = [id for id in judge(entries, [], exited=False) if id.startswith("server.")]
    assert wrong == ([] if told else ["server.receive-raised"])


def test_a_receive_after_the_disconnect_may_raise():
    entries = [entry(0, "received", DISCONNECT), entry(1, "receive raised", error="RuntimeError")]
    assert not list(judge([*entries, entry(2, "returned")], [], exited=False))


def first(*lines, findings=()):
    timeline = tuple(Line(0.0, side, text) for side, text in lines)
    return Result(server="x", scenario="x", title="x", findings=findings, timeline=timeline)


@pytest.mark.parametrize(
    ("result", "why"),
    [
        (first(("client", "answer 101")), ""),
        (first(("client", "answer 403")), "/ws was refused (403); is --path right?"),
        (
            first(("client", "answer 500"), findings=("server.pong-missing", "app.exception")),
            "/ws was refused (500); app.exception: an exception left the application",
        ),
        # The server's fault, and no status.
        (first(("client", TIMED_OUT.what), findings=("server.handshake-unanswered",)), ""),
        (first(("app", "answer 403")), ""),
    ],
    ids=["accepted", "refused", "raised", "time-out", "of the application"],
)
def test_a_first_trial_that_shows_that_no_other_can_tell_anything(result, why):
    assert not_reached(result, "/ws") == why
