"""Whatever is done in whatever order: nothing raises, and what comes back can be relied on."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ws_lifecycle_metrics.protocol import RULES, STATES, Lifecycle, Party, Severity

JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)
TYPES = st.sampled_from(
    [
        "websocket.connect",
        "websocket.receive",
        "websocket.disconnect",
        "websocket.accept",
        "websocket.send",
        "websocket.close",
        "websocket.http.response.start",
        "websocket.http.response.body",
        "http.response.start",
    ]
)
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "text": st.text() | JUNK,
    "bytes": st.binary() | st.builds(bytearray) | JUNK,
    "code": st.sampled_from([1000, 1005, 4400]) | JUNK,
    "reason": st.text() | JUNK,
    "subprotocol": st.just("chat") | JUNK,
    "headers": st.lists(st.tuples(st.binary(), st.binary())) | JUNK,
    "status": st.just(403) | JUNK,
    "body": st.binary() | JUNK,
    "more_body": st.booleans() | JUNK,
}
MESSAGES = st.fixed_dictionaries({"type": TYPES}, optional=FIELDS) | JUNK
SCOPES: st.SearchStrategy[Any] = JUNK | st.fixed_dictionaries(
    {"type": st.just("websocket")},
    optional={
        "subprotocols": st.just(["chat"]) | JUNK,
        "extensions": st.just({"websocket.http.response": {}}) | JUNK,
        "headers": JUNK,
        "client": JUNK,
    },
)
ERRORS = [RuntimeError(), OSError(), KeyboardInterrupt(), ExceptionGroup("", [ValueError()])]
EXCEPTIONS = st.sampled_from(ERRORS)
COUNTS = st.integers(0, 2)
CALLS = st.one_of(
    st.tuples(st.just("received"), MESSAGES),
    st.tuples(st.just("sent"), MESSAGES),
    st.tuples(st.just("send_failed"), MESSAGES, EXCEPTIONS, st.booleans()),
    st.tuples(st.just("receive_called"), COUNTS),
    st.tuples(st.just("receive_failed"), EXCEPTIONS),
    st.tuples(st.just("returned"), COUNTS),
    st.tuples(st.just("raised"), EXCEPTIONS, COUNTS),
    st.tuples(st.just("opened")),
    st.tuples(st.just("cancelled")),
)


@given(SCOPES, st.lists(CALLS, max_size=20))
def test_any_sequence_of_calls(scope: Any, calls: list[tuple[Any, ...]]) -> None:
    life = Lifecycle(scope)
    for name, *arguments in calls:
        before, initiator = life.state, life.close_initiator
        findings = getattr(life, name)(*arguments)
        assert all(RULES[rule.id] is rule for rule in findings)
        assert len(set(findings)) == len(findings)
        assert life.state in STATES
        assert before.label != "closing" or life.state.label == "closing"
        assert initiator is None or life.close_initiator is not None
        assert life.close_code is None or 0 <= life.close_code <= 0xFFFF
        assert life.subprotocol is None or life.accepted


@given(st.lists(st.sampled_from(["accept", "send", "close"]), max_size=8))
def test_after_a_disconnect_nothing_is_worse_than_a_warning(kinds: list[str]) -> None:
    life = Lifecycle({})
    life.received({"type": "websocket.connect"})
    life.received({"type": "websocket.disconnect", "code": 1001})
    for kind in kinds:
        findings = life.sent({"type": f"websocket.{kind}", "text": "", "subprotocol": "none"})
        assert [rule.severity for rule in findings if rule.severity is Severity.ERROR] == []
    assert life.returned() == ()


@given(st.lists(st.sampled_from(["send", "close", "ask", "accept"]), max_size=8))
def test_the_server_is_never_blamed_for_what_the_application_does(kinds: list[str]) -> None:
    life = Lifecycle({})
    for kind in kinds:
        findings = (
            life.receive_called(0)
            if kind == "ask"
            else life.sent({"type": f"websocket.{kind}", "text": ""})
        )
        assert {rule.party for rule in findings} <= {Party.APP}
