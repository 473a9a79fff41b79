"""Shield keeps back what the spec forbids after the end, and no more; strict raises the rule."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.middleware.conversation import SCOPE, Broken, Conversation
from tests.middleware.scripts import SCRIPTS, TO_SERVER
from tests.middleware.transparency import Script, run
from tests.support import (
    ACCEPT,
    CLOSE,
    CONNECT,
    DISCONNECT,
    Peer,
    books,
    finish,
    scope,
    send_text,
    totals,
    unbalanced,
)
from ws_lifecycle_metrics import Config, LifecycleMiddleware, ProtocolViolation
from ws_lifecycle_metrics.protocol import RULES, Severity
from ws_lifecycle_metrics.store.snapshot import Source

if TYPE_CHECKING:
    from collections.abc import Callable

    Wrap = Callable[[Any], Any]


@pytest.fixture
def shield(config: Config) -> Wrap:
    return partial(LifecycleMiddleware, config=replace(config, policy="shield"))


@pytest.fixture
def strict(config: Config) -> Wrap:
    return partial(LifecycleMiddleware, config=replace(config, policy="strict"))


# Shield.

SHIELDED = {
    "a message after the close": ("< connect; > accept; > close; > text late", 1),
    "bytes after the close": ("< connect; > accept; > close; > bytes 4", 1),
    "a second close": ("< connect; > accept; > close 4000; > close 1000", 1),
    "a second reject": ("< connect; > close; > close", 1),
    "an accept after the reject": ("< connect; > close; > accept", 1),
    "an accept after the close": ("< connect; > accept; > close; > accept", 1),
    "a message after the reject": ("< connect; > close; > text late", 1),
    "everything after the close": ("< connect; > accept; > close; > text a; > close; > accept", 3),
    "a denial after the close": ("< connect; > accept; > close; > deny; > body", 2),
    "a body after the last one": ("< connect; > deny; > body; > body", 1),
    "a message after the disconnect": ("< connect; > accept; < disconnect 1000; > text late", 1),
    "a close after the disconnect": ("< connect; > accept; < disconnect 1000; > close", 1),
    "after the disconnect that followed the close": (
        "< connect; > accept; > close; < disconnect 1000; > text late",
        1,
    ),
}
PASSED = {
    "a whole conversation": "< connect; > accept; < text a; > text b; > bytes 3; > close 4000",
    "a reject": "< connect; > close 4403",
    "a denial": "< connect; > deny; > body more; > body",
    "a denial's body before its start": "< connect; > body",
    "a message before the accept": "< connect; > text early; > accept; < disconnect 1000",
    "a second accept": "< connect; > accept; > accept; > close",
    "no payload": "< connect; > accept; > empty; > close",
    "an unknown event": "< connect; > accept; > unknown; > close",
    "an accept before the connect": "> accept; < connect; > close",
}


@pytest.mark.parametrize(("text", "dropped"), SHIELDED.values(), ids=SHIELDED)
def test_shield_drops(config: Config, shield: Wrap, text: str, dropped: int) -> None:
    talk = Conversation(shield, text)
    sends = sum(line[0] == ">" for line in talk.lines)
    assert talk.play() is None
    assert len(talk.peer.sent) == sends - dropped
    assert totals(books(config), "shielded_sends") == dropped
    assert totals(books(config), "protocol_violations") >= dropped
    assert unbalanced(books(config), 1) == []


@pytest.mark.parametrize("text", PASSED.values(), ids=PASSED)
def test_shield_lets_pass(config: Config, shield: Wrap, text: str) -> None:
    talk = Conversation(shield, text)
    assert talk.play() is None
    assert len(talk.peer.sent) == sum(line[0] == ">" for line in talk.lines)
    assert totals(books(config), "shielded_sends") == 0


def test_shielded_message_is_not_counted_as_sent(config: Config, shield: Wrap) -> None:
    Conversation(shield, "< connect; > accept; > text a; > close; > text late").play()
    assert totals(books(config), "sent_messages") == 1
    assert totals(books(config), "sent_bytes") == 1


# Not the ones that cannot be read at all: they move nothing.
READABLE = [n for n, message in enumerate(TO_SERVER[:21]) if n not in (2, 15)]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(READABLE), max_size=8))
def test_shield_drops_what_follows_the_end_and_only_that(
    tmp_path_factory: pytest.TempPathFactory, indices: list[int]
) -> None:
    """What reaches the server is the same sequence, less what the rules say came too late."""
    sends = [TO_SERVER[index] for index in indices]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        for message in sends:
            await send(message)

    observed, shielded = Peer([CONNECT]), Peer([CONNECT])
    base = tmp_path_factory.getbasetemp() / "shield"
    for policy, peer in (("observe", observed), ("shield", shielded)):
        config = Config(
            service=policy,
            directory=str(base),
            policy=policy,  # type: ignore[arg-type]  # a str, and one of the policies
        )
        finish(LifecycleMiddleware(app, config=config)(scope(**SCOPE), peer.receive, peer.send))
    assert [id(m) for m in observed.sent] == [id(m) for m in sends]
    ends = next((n for n, m in enumerate(sends) if is_close(m)), len(sends))
    head, tail = sends[: ends + 1], sends[ends + 1 :]
    kept = [m for m in tail if not is_late(m)]
    assert [id(m) for m in shielded.sent] == [id(m) for m in [*head, *kept]]


def is_close(message: Any) -> bool:
    return type(message) is dict and message["type"] == "websocket.close"


def is_late(message: Any) -> bool:
    return message["type"] in ("websocket.accept", "websocket.send", "websocket.close")


# Strict.

STRICT = {
    "app.send-before-accept": "< connect; > text early",
    "app.accept-twice": "< connect; > accept; > accept",
    "app.accept-after-close": "< connect; > close; > accept",
    "app.send-after-close": "< connect; > accept; > close; > text late",
    "app.send-no-payload": "< connect; > accept; > empty",
    "app.unknown-event": "< connect; > accept; > unknown",
    "app.denial-out-of-order": "< connect; > body",
    "app.denial-incomplete": "< connect; > deny",
    "app.return-before-handshake": "< connect",
    "app.subprotocol-not-offered": "< connect; > accept graphql-ws",
    "app.close-code-invalid": "< connect; > accept; > close 99",
    "server.duplicate-connect": "< connect; < connect",
    "server.first-event-not-connect": "< text early",
    "server.receive-before-accept": "< connect; < text early",
    "server.event-after-disconnect": "< connect; > accept; < disconnect 1000; < text late",
    "server.receive-no-payload": "< connect; > accept; < empty",
    "server.unknown-event": "< connect; > accept; < unknown",
}


@pytest.mark.parametrize(("rule", "text"), STRICT.items(), ids=STRICT)
def test_strict_raises_the_rule(config: Config, strict: Wrap, rule: str, text: str) -> None:
    error = Conversation(strict, text).play()
    assert isinstance(error, ProtocolViolation)
    assert error.rule is RULES[rule]
    assert rule in str(error)
    broken = {key[-1] for key in books(config) if key[0] == "protocol_violations"}
    assert "app.exception" not in broken
    assert not totals(books(config), "app_errors")
    assert unbalanced(books(config), 1) == []
    assert Source(config).take().connections() == []


@pytest.mark.parametrize(
    "text",
    [
        "< connect; > accept; > close; > close",
        "< connect; > accept; < disconnect 1000; > text late",
        "< connect; > accept",
        "> accept; < connect; > close",
    ],
    ids=["close twice", "send after disconnect", "return without close", "early accept"],
)
def test_strict_lets_warnings_pass(config: Config, strict: Wrap, text: str) -> None:
    assert Conversation(strict, text).play() is None
    found = [key[-1] for key in books(config) if key[0] == "protocol_violations"]
    assert found
    assert all(RULES[rule].severity is not Severity.ERROR for rule in found)


def test_strict_keeps_the_forbidden_event_from_the_server(strict: Wrap) -> None:
    talk = Conversation(strict, "< connect; > accept; > close; > text late")
    talk.play()
    assert [message["type"] for message in talk.peer.sent] == [
        "websocket.accept",
        "websocket.close",
    ]


def test_exception_of_the_application_wins(config: Config, strict: Wrap) -> None:
    assert isinstance(Conversation(strict, "< connect; raise").play(), Broken)
    assert unbalanced(books(config), 1) == []


def test_exception_of_the_application_wins_over_a_violation_it_met(strict: Wrap) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        try:
            await send(send_text("early"))
        except ProtocolViolation as violation:
            raise Broken from violation

    with pytest.raises(Broken):
        Peer([CONNECT]).serve(strict(app))


def test_application_that_goes_on_after_a_violation(config: Config, strict: Wrap) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        with pytest.raises(ProtocolViolation):
            await send(send_text("early"))
        await send(ACCEPT)
        await send(send_text("in time"))
        with pytest.raises(ProtocolViolation):
            await send({"type": "websocket.send"})
        await send(CLOSE)

    peer = Peer([CONNECT])
    peer.serve(strict(app))
    assert peer.sent == [ACCEPT, send_text("in time"), CLOSE]
    assert unbalanced(books(config), 1) == []
    assert totals(books(config), "sent_messages") == 1


def test_a_scope_that_breaks_a_rule_leaves_no_record(config: Config, strict: Wrap) -> None:
    peer = Peer([CONNECT, DISCONNECT])

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(CLOSE)

    finish(strict(app)({"type": "websocket"}, peer.receive, peer.send))
    assert unbalanced(books(config), 1) == []


@pytest.mark.parametrize("policy", ["shield", "strict"])
@settings(max_examples=50, deadline=None)
@given(script=SCRIPTS)
def test_books_balance_under_any_policy(
    tmp_path_factory: pytest.TempPathFactory, policy: Any, script: Script
) -> None:
    base = tmp_path_factory.getbasetemp() / "policies"
    config = Config(service=policy, directory=str(base), policy=policy)
    before = books(config)
    observed = partial(LifecycleMiddleware, config=config)
    run(script, observed, script.make_scope())
    grown = {key: value - before.get(key, 0) for key, value in books(config).items()}
    assert unbalanced(grown, int(totals(grown, "handshakes"))) == []


@pytest.mark.parametrize("policy", ["observe", "shield", "strict"])
def test_no_policy_touches_http(config: Config, policy: Any) -> None:
    given: list[Any] = []

    async def app(*arguments: Any) -> None:
        given.extend(arguments)

    peer = Peer()
    arguments = ({"type": "http"}, peer.receive, peer.send)
    finish(LifecycleMiddleware(app, config=replace(config, policy=policy))(*arguments))
    assert all(a is b for a, b in zip(given, arguments, strict=True))
