"""What a conversation leaves for others to read: its state, result, close and subprotocol."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest

from ws_lifecycle_metrics.protocol import INITIAL, OPEN, Lifecycle

SCOPE: dict[str, Any] = {
    "type": "websocket",
    "subprotocols": ["chat"],
    "extensions": {"websocket.http.response": {}},
}
CONNECT = {"type": "websocket.connect"}
ACCEPT = {"type": "websocket.accept", "subprotocol": "chat"}
CLOSE = {"type": "websocket.close", "code": 4400}
SEND = {"type": "websocket.send", "text": ""}
DISCONNECT = {"type": "websocket.disconnect", "code": 1001}
DENY = {"type": "websocket.http.response.start", "status": 403}
DENIED = {"type": "websocket.http.response.body"}


def connected() -> Lifecycle:
    life = Lifecycle(SCOPE)
    life.received(CONNECT)
    return life


def opened() -> Lifecycle:
    life = connected()
    life.sent(ACCEPT)
    return life


def outcome(life: Lifecycle) -> tuple[str | None, str | None, int | None]:
    return life.result, life.close_initiator, life.close_code


def test_a_new_conversation() -> None:
    life = Lifecycle(SCOPE)
    assert life.state is INITIAL
    assert outcome(life) == (None, None, None)
    assert life.subprotocol is None
    assert not life.accepted


def test_accepted() -> None:
    life = opened()
    assert life.state is OPEN
    assert outcome(life) == ("accepted", None, None)
    assert life.subprotocol == "chat"
    assert life.accepted


@pytest.mark.parametrize("payload", [{"text": "x"}, {"bytes": b"x"}], ids=["text", "bytes"])
def test_a_message_while_open_changes_nothing(payload: dict[str, Any]) -> None:
    """Those who count messages rely on it, and do not ask here."""
    life = opened()
    before = {name: getattr(life, name) for name in Lifecycle.__slots__}
    assert life.sent({"type": "websocket.send", **payload}) == ()
    assert life.received({"type": "websocket.receive", **payload}) == ()
    assert {name: getattr(life, name) for name in Lifecycle.__slots__} == before


def test_the_application_closes_first() -> None:
    life = opened()
    life.sent(CLOSE)
    life.received(DISCONNECT)
    assert outcome(life) == ("accepted", "app", 4400)


def test_the_client_closes_first() -> None:
    life = opened()
    life.received(DISCONNECT)
    life.sent(CLOSE)
    assert outcome(life) == ("accepted", "client", 1001)


def test_a_repeated_disconnect_does_not_rewrite_the_first() -> None:
    life = opened()
    life.received(DISCONNECT)
    life.received({**DISCONNECT, "code": 1005})
    assert life.close_code == 1001


def test_rejected() -> None:
    life = connected()
    life.sent({"type": "websocket.close"})
    life.received(DISCONNECT)
    assert outcome(life) == ("rejected", "app", 1000)


def test_denied() -> None:
    life = connected()
    life.sent(DENY)
    assert outcome(life) == ("denied", None, None)
    life.sent(DENIED)
    life.received(DISCONNECT)
    assert outcome(life) == ("denied", "app", None)


def test_client_gone_during_the_handshake() -> None:
    life = connected()
    life.received(DISCONNECT)
    life.sent(ACCEPT)
    assert outcome(life) == (None, "client", 1001)


def test_a_lost_send_is_the_client_leaving_and_the_disconnect_brings_the_code() -> None:
    life = opened()
    life.send_failed(SEND, OSError(), legal=True)
    assert outcome(life) == ("accepted", "client", None)
    assert life.state.label == "closing"
    life.received(DISCONNECT)
    assert outcome(life) == ("accepted", "client", 1001)


def test_a_close_that_finds_nobody_was_not_first() -> None:
    life = opened()
    life.sent(CLOSE)
    life.send_failed(CLOSE, OSError(), legal=True)
    assert outcome(life) == ("accepted", "client", None)


def test_a_send_lost_to_the_own_close_leaves_the_close_to_the_application() -> None:
    life = opened()
    life.sent(CLOSE)
    life.send_failed(SEND, OSError(), legal=True)
    assert outcome(life) == ("accepted", "app", 4400)


@pytest.mark.parametrize("legal", [True, False])
@pytest.mark.parametrize("exc", [RuntimeError(), OSError()], ids=repr)
def test_an_accept_that_failed_is_none(exc: Exception, legal: bool) -> None:
    life = opened()
    life.send_failed(ACCEPT, exc, legal)
    assert life.result is None
    assert life.subprotocol is None
    assert not life.accepted


def test_a_second_accept_that_failed_leaves_the_first() -> None:
    life = opened()
    life.received(CONNECT)
    again = dict(ACCEPT)
    assert life.sent(again) == ()
    life.send_failed(again, RuntimeError(), legal=True)
    assert life.accepted
    assert life.state is OPEN


@pytest.mark.parametrize("message", [ACCEPT, SEND, CLOSE], ids=lambda message: message["type"])
def test_what_another_loop_could_not_wait_for_may_have_been_sent(message: dict[str, Any]) -> None:
    life = opened()
    if message is not ACCEPT:
        life.sent(message)
    before = life.state
    assert life.send_failed(message, failure := RuntimeError(), legal=True, here=False) == ()
    assert life.state is before
    assert life.accepted
    assert [rule.id for rule in life.raised(failure)] == ["app.exception"]


def test_another_loop_is_told_that_the_client_is_gone_as_its_own_is() -> None:
    life = opened()
    assert life.send_failed(SEND, failure := OSError(), legal=True, here=False) == ()
    assert outcome(life) == ("accepted", "client", None)
    assert life.raised(failure) == ()


def test_a_cancelled_send_is_not_a_failure() -> None:
    life = opened()
    assert life.send_failed(SEND, KeyboardInterrupt(), legal=True) == ()
    assert life.state is OPEN


@pytest.mark.parametrize("scope", [None, 0, [], "websocket"], ids=repr)
def test_a_scope_that_is_none(scope: object) -> None:
    life = Lifecycle(scope)
    assert [rule.id for rule in life.opened()] == ["server.scope-invalid"]
    assert life.received(CONNECT) == life.sent({"type": "websocket.accept"}) == ()


class WeaklyReferableError(Exception):
    """An exception that takes weak references."""


@pytest.mark.parametrize("end", ["returned", "raised", "cancelled"])
def test_no_exception_outlives_the_conversation(end: str) -> None:
    life = opened()
    failure = WeaklyReferableError()
    for _ in range(10):
        life.send_failed(SEND, failure, legal=True)
    reference = weakref.ref(failure)
    getattr(life, end)(*([failure] if end == "raised" else []))
    del failure
    gc.collect()
    assert reference() is None


def test_another_exception_of_the_same_kind_is_the_applications() -> None:
    life = opened()
    life.send_failed(SEND, RuntimeError(), legal=True)
    assert [rule.id for rule in life.raised(RuntimeError())] == ["app.exception"]
