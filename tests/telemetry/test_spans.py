"""What spans a conversation makes, and what they say."""

from __future__ import annotations

import asyncio
import logging
import re

import pytest
from opentelemetry.trace import SpanKind, StatusCode

from tests.telemetry.harness import (
    ACCEPT,
    CONNECT,
    DISCONNECT,
    Tracing,
    echo,
    say,
    text,
)
from ws_lifecycle_metrics.store.snapshot import Source, package_version
from ws_lifecycle_metrics.telemetry import logs
from ws_lifecycle_metrics.telemetry import spans as module
from ws_lifecycle_metrics.telemetry.spans import MAX_EVENTS, MAX_FINDINGS
from ws_lifecycle_metrics.telemetry.tracer import MAX_FRAMES


@pytest.fixture
def tracing(tmp_path):
    return Tracing(tmp_path)


def exemplars(tracing, name):
    """Return the spans that a histogram names."""
    (family,) = [
        family
        for family in Source(tracing.config).take().families()
        if family.metric.name == f"websocket.server.{name}"
    ]
    return {one.span_id for value in family.series.values() for one in value.exemplars if one}


def attributes(span):
    return dict(span.attributes)


def test_an_echo_makes_a_span_of_each_step(tracing):
    tracing.run(echo, CONNECT, text(), DISCONNECT)
    assert tracing.names == [
        "GET /chat",
        "websocket send",
        "websocket receive",
        "websocket disconnect",
        "websocket connection",
    ]


def test_the_handshake_says_what_http_says_of_it(tracing):
    tracing.run(echo, CONNECT, DISCONNECT, scheme="wss", subprotocols=["chat"])
    span = tracing.one("GET /chat")
    scope = span.instrumentation_scope
    assert (scope.name, scope.version) == ("ws_lifecycle_metrics", package_version())
    assert span.kind is SpanKind.SERVER
    assert attributes(span) == {
        "http.request.method": "GET",
        "http.response.status_code": 101,
        "http.route": "/chat",
        "network.protocol.name": "http",
        "network.protocol.version": "1.1",
        "url.scheme": "wss",
    }
    assert span.status.status_code is StatusCode.UNSET


def test_a_route_that_nobody_told_is_on_no_span(tmp_path):
    """It has no template: 'other' is what the metrics call all of them together."""
    tracing = Tracing(tmp_path, route=None)
    tracing.run(echo, CONNECT, text(), DISCONNECT)
    assert tracing.one("GET")
    assert not [span.name for span in tracing.spans if "http.route" in span.attributes]


def test_http_2_connects(tracing):
    tracing.run(echo, CONNECT, DISCONNECT, http_version="2")
    span = tracing.one("CONNECT /chat")
    assert span.attributes["network.protocol.version"] == "2"


def test_the_client_is_named_only_on_request(tmp_path):
    tracing = Tracing(tmp_path, span_client_address=True)
    tracing.run(echo, CONNECT, DISCONNECT)
    assert tracing.one("GET /chat").attributes["client.address"] == "192.0.2.7"


def test_the_connection_tells_its_whole_life(tracing):
    async def app(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept", "subprotocol": "chat"})
        await receive()
        await send(say("hi"))
        await receive()

    tracing.run(app, CONNECT, text("hello"), DISCONNECT, subprotocols=["chat"])
    span, handshake = tracing.one("websocket connection"), tracing.one("GET /chat")
    assert attributes(span) == {
        "http.route": "/chat",
        "network.protocol.name": "websocket",
        "websocket.close.code": 1000,
        "websocket.close.initiator": "client",
        "websocket.received.bytes": 5,
        "websocket.received.messages": 1,
        "websocket.sent.bytes": 2,
        "websocket.sent.messages": 1,
        "websocket.subprotocol": "chat",
        "websocket.violations": 0,
    }
    assert span.parent is None
    assert [link.context for link in span.links] == [handshake.context]
    assert span.start_time == handshake.end_time
    assert handshake.attributes["websocket.subprotocol"] == "chat"


def test_all_but_the_handshake_are_roots_linked_to_it(tracing):
    tracing.run(echo, CONNECT, text(), text(), DISCONNECT)
    handshake, *others = tracing.spans
    assert len({span.context.trace_id for span in tracing.spans}) == len(tracing.spans)
    for span in others:
        assert span.parent is None
        assert span.kind is SpanKind.INTERNAL
        assert [link.context for link in span.links] == [handshake.context]


def test_times_nest_and_a_receive_covers_no_wait(tracing):
    async def app(scope, receive, send):
        await receive()
        await send(ACCEPT)
        await receive()
        await asyncio.sleep(0.03)
        waiting = asyncio.ensure_future(receive())
        await asyncio.sleep(0)  # the call begins, and with it ends the span before
        await asyncio.sleep(0.05)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await send({"type": "websocket.close"})

    tracing.run(app, CONNECT, text())
    receive, whole = tracing.one("websocket receive"), tracing.one("websocket connection")
    assert receive.end_time - receive.start_time >= 0.03e9
    assert whole.end_time - receive.end_time >= 0.05e9
    for span in tracing.spans:
        assert span.start_time <= span.end_time


@pytest.mark.parametrize(
    ("close", "status"),
    [({"type": "websocket.close"}, 403), ({"type": "websocket.close", "code": 4403}, 403)],
    ids=["plain", "with a code"],
)
def test_a_rejection_is_a_handshake_alone_and_no_error(tracing, close, status):
    async def app(scope, receive, send):
        await receive()
        await send(close)

    tracing.run(app, CONNECT)
    (span,) = tracing.spans
    assert span.attributes["http.response.status_code"] == status
    assert span.status.status_code is StatusCode.UNSET


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        (401, StatusCode.UNSET, None),
        (499, StatusCode.UNSET, None),
        (500, StatusCode.ERROR, "500"),
        (503, StatusCode.ERROR, "503"),
    ],
)
def test_a_denial_has_its_own_status(tracing, status, code, error):
    async def app(scope, receive, send):
        await receive()
        start = {"type": "websocket.http.response.start", "status": status, "headers": []}
        await send(start)
        await send({"type": "websocket.http.response.body", "body": b""})

    tracing.run(app, CONNECT)
    (span,) = tracing.spans
    assert span.attributes["http.response.status_code"] == status
    assert span.status.status_code is code
    assert span.attributes.get("error.type") == error


def test_a_handshake_without_an_answer_is_an_error(tracing):
    async def app(scope, receive, send):
        await receive()

    tracing.run(app, CONNECT)
    (span,) = tracing.spans
    assert span.attributes["http.response.status_code"] == 500
    assert span.status.status_code is StatusCode.ERROR
    assert span.attributes["error.type"] == "500"


def test_an_exception_before_the_answer_is_on_the_handshake(tracing):
    async def app(scope, receive, send):
        await receive()
        raise LookupError("secret of a user")

    with pytest.raises(LookupError):
        tracing.run(app, CONNECT)
    (span,) = tracing.spans
    assert span.attributes["http.response.status_code"] == 500
    assert span.status.status_code is StatusCode.ERROR
    assert span.attributes["error.type"] == "LookupError"
    assert [event.name for event in span.events] == ["websocket.violation", "exception"]


def test_an_exception_after_the_accept_is_not_lost(tracing):
    async def app(scope, receive, send):
        await receive()
        await send(ACCEPT)
        await receive()
        raise LookupError("secret of a user")

    with pytest.raises(LookupError):
        tracing.run(app, CONNECT, text())
    for name in ("websocket connection", "websocket receive"):
        span = tracing.one(name)
        assert span.status.status_code is StatusCode.ERROR
        assert span.status.description == "LookupError"
        assert span.attributes["error.type"] == "LookupError"
        (event,) = [e for e in span.events if e.name == "exception"]
        assert event.attributes["exception.type"] == "LookupError"
        assert re.search(r"test_spans\.py:\d+:.*app$", event.attributes["exception.stacktrace"])
        assert "secret" not in repr([span.attributes, span.events, span.status])
    assert tracing.one("GET /chat").status.status_code is StatusCode.UNSET
    assert tracing.named("websocket disconnect") == []  # nobody closed


class OutOfDepth(Exception):  # noqa: N818  # what it is called is told by the span
    pass


def test_of_a_deep_exception_the_last_frames_are_kept(tracing):
    def dive(depth):
        if not depth:
            raise OutOfDepth
        dive(depth - 1)

    async def app(scope, receive, send):
        await receive()
        await send(ACCEPT)
        dive(100)

    with pytest.raises(OutOfDepth):
        tracing.run(app, CONNECT)
    span = tracing.one("websocket connection")
    assert span.attributes["error.type"] == f"{__name__}.OutOfDepth"
    (event,) = [e for e in span.events if e.name == "exception"]
    frames = event.attributes["exception.stacktrace"].splitlines()
    assert len(frames) == MAX_FRAMES
    assert all(frame.endswith("dive") for frame in frames)


@pytest.mark.parametrize("code", [1000, 1001, 1005, 1006, 4000])
def test_a_close_by_the_client_is_no_error(tracing, code):
    tracing.run(echo, CONNECT, text(), {"type": "websocket.disconnect", "code": code})
    for span in tracing.spans:
        assert span.status.status_code is StatusCode.UNSET
        assert not span.events
    assert tracing.one("websocket disconnect").attributes["websocket.close.code"] == code


def test_the_exception_by_which_frameworks_tell_of_a_departure_is_no_error(tracing):
    class WebSocketDisconnect(Exception):  # noqa: N818  # Starlette's and others' name
        pass

    async def app(scope, receive, send):
        await echo(scope, receive, send)
        raise WebSocketDisconnect

    with pytest.raises(WebSocketDisconnect):
        tracing.run(app, CONNECT, DISCONNECT)
    span = tracing.one("websocket connection")
    assert span.status.status_code is StatusCode.UNSET
    assert [event.name for event in span.events] == ["exception"]


def test_a_server_that_raises_is_an_error_of_the_connection(tracing):
    async def refuse(message):
        if message["type"] == "websocket.send":
            raise RuntimeError("ASGI flow error")

    with pytest.raises(RuntimeError):
        tracing.run(echo, CONNECT, text(), send=refuse)
    send = tracing.one("websocket send")
    assert send.status.status_code is StatusCode.ERROR
    assert tracing.one("websocket connection").status.status_code is StatusCode.ERROR


def test_a_cancelled_connection_still_has_its_spans(tracing):
    async def main():
        answered = asyncio.Event()

        async def note(message):
            if message["type"] == "websocket.send":
                answered.set()

        task = asyncio.ensure_future(tracing.converse(echo, CONNECT, text(), send=note))
        await answered.wait()
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(asyncio.wait_for(main(), 30))
    assert tracing.one("websocket connection").status.status_code is StatusCode.UNSET


# The budget.


@pytest.mark.parametrize(
    ("budget", "expected"), [(8, 8), (0, 0), (3, 3), (None, 20)], ids=["8", "0", "3", "no limit"]
)
def test_messages_have_spans_within_the_budget(tmp_path, budget, expected):
    tracing = Tracing(tmp_path, span_budget=budget)
    tracing.run(echo, CONNECT, *[text("x")] * 20, DISCONNECT)
    assert len(tracing.named("websocket receive")) == expected
    assert len(tracing.named("websocket send")) == expected
    whole = tracing.one("websocket connection").attributes
    assert whole["websocket.received.messages"] == whole["websocket.sent.messages"] == 20
    assert tracing.dropped == 0


def test_each_way_has_a_budget_of_its_own(tracing):
    async def app(scope, receive, send):
        await receive()
        await send(ACCEPT)
        await receive()
        for _ in range(50):
            await send(say())
        await receive()

    tracing.run(app, CONNECT, text(), DISCONNECT)
    assert len(tracing.named("websocket receive")) == 1
    assert len(tracing.named("websocket send")) == tracing.config.span_budget == 2
    assert tracing.one("websocket connection").attributes["websocket.sent.messages"] == 50


def test_messages_are_counted_the_same_with_and_without_spans(tmp_path):
    books = []
    for number, options in enumerate(({}, {"span_budget": 0}, {"span_budget": None})):
        tracing = Tracing(tmp_path / str(number), **options)
        tracing.run(echo, CONNECT, *[text("é")] * 12, DISCONNECT)
        names = ("received_messages", "sent_messages", "received_bytes", "send.duration", "closes")
        books.append([tracing.total(f"websocket.server.{name}") for name in names])
    assert books == [[12, 12, 24, 12, 1]] * 3


def test_a_message_has_opcode_and_size_and_never_its_payload(tracing):
    tracing.run(echo, CONNECT, text("täglich"), DISCONNECT)
    expected = {"websocket.message.opcode": "text", "websocket.message.size": 8}
    assert attributes(tracing.one("websocket receive")) == expected
    assert attributes(tracing.one("websocket send")) == expected
    assert "täglich" not in repr([(s.attributes, s.events) for s in tracing.spans])
    assert "secret" not in repr([(s.attributes, s.events) for s in tracing.spans])


def test_a_slow_send_has_a_span_when_the_budget_is_spent(tmp_path):
    async def slow(message):
        if message.get("text") == "slow":
            await asyncio.sleep(0.12)

    tracing = Tracing(tmp_path, span_budget=1)
    few = [text() for _ in range(5)]  # the budget is spent, and messages go the quick way
    tracing.run(echo, CONNECT, *few, text("slow"), text(), DISCONNECT, send=slow)
    _, second = tracing.named("websocket send")
    assert second.end_time - second.start_time >= 0.12e9
    assert len(tracing.named("websocket receive")) == 1


def test_a_failed_send_has_a_span_when_the_budget_is_spent(tmp_path):
    async def refuse(message):
        if message.get("text") == "last":
            raise ConnectionResetError

    tracing = Tracing(tmp_path, span_budget=1)
    with pytest.raises(ConnectionResetError):
        tracing.run(echo, CONNECT, text(), text(), text("last"), send=refuse)
    _, second = tracing.named("websocket send")
    assert second.attributes["error.type"] == "ConnectionResetError"
    assert second.status.status_code is StatusCode.UNSET  # the client left: nobody's fault
    assert exemplars(tracing, "send.duration") == {
        span.context.span_id for span in tracing.named("websocket send")[:1]
    }


# Violations.


async def breaks_a_rule(scope, receive, send):
    await receive()
    await send(ACCEPT)
    for _ in range(3):
        await receive()
        await send(say())
    await send(ACCEPT)
    await receive()


def test_a_violation_is_an_event_of_the_span_at_hand(tracing):
    async def app(scope, receive, send):
        await receive()
        await send(say())
        await send(ACCEPT)
        await send({"type": "websocket.close"})

    tracing.run(app, CONNECT)
    (event,) = tracing.one("GET /chat").events
    assert event.name == "websocket.violation"
    assert dict(event.attributes) == {
        "websocket.violation.rule": "app.send-before-accept",
        "websocket.violation.party": "app",
        "websocket.violation.severity": "error",
    }


def test_a_violation_of_a_send_is_on_its_span(tracing):
    async def app(scope, receive, send):
        await receive()
        await send(ACCEPT)
        await send({"type": "websocket.send"})
        await send(say())
        await receive()

    tracing.run(app, CONNECT, DISCONNECT)
    (event,) = tracing.one("websocket send").events
    assert event.attributes["websocket.violation.rule"] == "app.send-no-payload"


async def answers_once(scope, receive, send):
    """Send a message after whatever comes first."""
    await receive()
    await send(ACCEPT)
    await receive()
    await send(say())
    await receive()


def test_a_violation_of_the_server_is_on_the_span_of_its_message(tracing):
    bad = {"type": "websocket.receive", "bytes": bytearray(2)}
    tracing.run(answers_once, CONNECT, bad, DISCONNECT)
    (event,) = tracing.one("websocket receive").events
    assert event.attributes["websocket.violation.rule"] == "server.receive-wrong-type"
    assert tracing.named("websocket violation") == []
    assert not tracing.one("websocket send").events


def test_a_violation_with_no_message_at_hand_has_a_span_of_its_own(tracing):
    tracing.run(answers_once, CONNECT, CONNECT, DISCONNECT)
    span = tracing.one("websocket violation")
    assert span.attributes["websocket.violation.rule"] == "server.duplicate-connect"
    assert not tracing.one("websocket send").events


def test_events_of_a_span_are_bounded_and_the_rest_have_spans(tracing):
    async def app(scope, receive, send):
        await receive()
        await send(ACCEPT)
        for _ in range(MAX_EVENTS + 3):
            await send({"type": "websocket.send"})
        await send(say())
        await receive()

    tracing.run(app, CONNECT, DISCONNECT)
    assert len(tracing.one("websocket send").events) == MAX_EVENTS
    assert len(tracing.named("websocket violation")) == 3


def test_what_is_worth_counting_alone_has_no_span_of_its_own(tmp_path):
    tracing = Tracing(tmp_path, span_budget=0)

    async def app(scope, receive, send):
        await echo(scope, receive, send)
        await send({"type": "websocket.close"})

    tracing.run(app, CONNECT, DISCONNECT)
    assert tracing.named("websocket violation") == []
    whole = tracing.one("websocket connection").attributes
    assert whole["websocket.violation.rules"] == ("app.close-after-disconnect",)
    assert tracing.dropped == 0


def test_the_rules_of_a_connection_are_bounded(tracing, monkeypatch):
    monkeypatch.setattr(module, "MAX_RULES", 1)

    async def app(scope, receive, send):
        await receive()
        await send(ACCEPT)
        await send(ACCEPT)
        await send({"type": "websocket.send"})
        await receive()

    tracing.run(app, CONNECT, DISCONNECT)
    whole = tracing.one("websocket connection").attributes
    assert whole["websocket.violation.rules"] == ("app.accept-twice",)
    assert whole["websocket.violations"] == 2


def test_a_violation_has_a_span_of_its_own_when_the_budget_is_spent(tmp_path):
    tracing = Tracing(tmp_path, span_budget=0)
    tracing.run(breaks_a_rule, CONNECT, text(), text(), text(), DISCONNECT)
    span = tracing.one("websocket violation")
    assert span.attributes["websocket.violation.rule"] == "app.accept-twice"
    whole = tracing.one("websocket connection").attributes
    assert whole["websocket.violation.rules"] == ("app.accept-twice",)
    assert whole["websocket.violations"] == 1


def test_findings_are_bounded_and_the_rest_is_counted(tmp_path):
    async def app(scope, receive, send):
        await receive()
        await send(ACCEPT)
        await send({"type": "websocket.close"})
        for _ in range(MAX_FINDINGS + 50):
            await send(say())

    tracing = Tracing(tmp_path, span_budget=0)
    tracing.run(app, CONNECT)
    assert len(tracing.named("websocket violation")) == MAX_FINDINGS
    assert tracing.dropped == 50


def test_the_log_record_of_a_violation_names_the_trace(tracing, caplog, monkeypatch):
    monkeypatch.setattr(logs, "_limit", logs.RateLimit())
    with caplog.at_level(logging.ERROR):
        tracing.run(breaks_a_rule, CONNECT, text(), text(), text(), DISCONNECT)
    (record,) = [r for r in caplog.records if getattr(r, "rule", "") == "app.accept-twice"]
    context = tracing.one("GET /chat").context
    assert record.trace_id == f"{context.trace_id:032x}"
    assert record.span_id == f"{context.span_id:016x}"


def test_the_disconnect_begins_with_the_first_close(tracing):
    async def app(scope, receive, send):
        await receive()
        await send(ACCEPT)
        await send({"type": "websocket.close", "code": 4000})
        await asyncio.sleep(0.05)
        await receive()

    tracing.run(app, CONNECT, DISCONNECT)
    span = tracing.one("websocket disconnect")
    assert span.end_time - span.start_time >= 0.05e9
    assert span.attributes["websocket.close.initiator"] == "app"
    assert span.attributes["websocket.close.code"] == 4000


def test_a_stuck_connection_names_its_trace(tmp_path, caplog):
    tracing = Tracing(tmp_path, stuck_closing=0.05)

    def found():
        return [r for r in caplog.records if getattr(r, "stuck_reason", "") == "closing"]

    async def app(scope, receive, send):
        await receive()
        await send(ACCEPT)
        await receive()
        for _ in range(400):
            if found():
                return
            await asyncio.sleep(0.05)

    tracing.run(app, CONNECT, DISCONNECT)
    (record,) = found()
    context = tracing.one("GET /chat").context
    assert record.trace_id == f"{context.trace_id:032x}"
    assert record.span_id == f"{context.span_id:016x}"
    assert tracing.one("websocket connection").attributes["websocket.stuck.reason"] == ("closing",)
