"""Whose trace a conversation belongs to: traceparent, links, sampling, operations."""

from __future__ import annotations

import asyncio
import json
import time

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    ALWAYS_ON,
    Decision,
    ParentBased,
    StaticSampler,
    TraceIdRatioBased,
)
from opentelemetry.trace import Link, SpanKind, StatusCode, get_current_span

from tests.telemetry.harness import (
    CONNECT,
    DISCONNECT,
    LIMIT,
    SPAN,
    TRACE,
    TRACEPARENT,
    Tracing,
    echo,
    text,
)
from ws_lifecycle_metrics.store.snapshot import Source
from ws_lifecycle_metrics.store.workers import current
from ws_lifecycle_metrics.telemetry import carriers
from ws_lifecycle_metrics.telemetry.operations import begin_operation
from ws_lifecycle_metrics.telemetry.prometheus import render
from ws_lifecycle_metrics.telemetry.sampling import FollowLinks
from ws_lifecycle_metrics.telemetry.spans import begin

PARENT = (b"traceparent", TRACEPARENT.encode())
INIT = json.dumps({"type": "connection_init", "payload": {"traceparent": TRACEPARENT}})
OTHER_INIT = INIT.replace(TRACE, "f" * 32)


@pytest.fixture
def tracing(tmp_path):
    return Tracing(tmp_path)


def remote_trace(context):
    found = get_current_span(context).get_span_context() if context is not None else None
    return f"{found.trace_id:032x}" if found is not None else None


# Carriers.


@pytest.mark.parametrize(
    "headers",
    [[PARENT], (PARENT,), [[b"Traceparent", TRACEPARENT.encode()]]],
    ids=["list", "tuple", "capitals"],
)
def test_the_parent_is_in_the_headers(headers):
    assert remote_trace(carriers.from_headers(headers)) == TRACE


BAD = {
    "empty": b"",
    "words": b"not a traceparent",
    "zero trace": b"00-" + b"0" * 32 + b"-b7ad6b7169203331-01",
    "zero span": b"00-" + TRACE.encode() + b"-" + b"0" * 16 + b"-01",
    "short": TRACEPARENT.encode()[:-4],
    "version ff": b"ff" + TRACEPARENT.encode()[2:],
    "capitals": TRACEPARENT.encode().upper(),
    "not ASCII": b"\xff\xfe" * 20,
    "a newline": TRACEPARENT.encode() + b"\r\nx: y",
    "huge": TRACEPARENT.encode() + b"-" + b"a" * 10_000_000,
}


@pytest.mark.parametrize("value", BAD.values(), ids=BAD)
def test_a_malformed_parent_is_none(tracing, value):
    tracing.run(echo, CONNECT, text(), DISCONNECT, headers=[(b"traceparent", value)])
    handshake = tracing.one("GET /chat")
    assert handshake.parent is None
    assert tracing.dropped == 0


@pytest.mark.parametrize(("length", "trace_id"), [(128, TRACE), (129, None)])
def test_a_later_versions_parent_may_be_longer_up_to_a_bound(length, trace_id):
    later = f"01{TRACEPARENT[2:]}-".ljust(length, "a")
    assert remote_trace(carriers.from_headers([(b"traceparent", later.encode())])) == trace_id


@pytest.mark.parametrize(
    "headers",
    [
        [PARENT, PARENT],
        None,
        {b"traceparent": TRACEPARENT.encode()},
        [None, 5, (b"traceparent",), (b"traceparent", None), ("traceparent", TRACEPARENT)],
        "traceparent",
    ],
    ids=["twice", "none", "a dict", "junk", "a str"],
)
def test_what_is_no_header_list_has_no_parent(headers):
    assert carriers.from_headers(headers) is None


def test_a_generator_of_headers_is_left_to_the_application(tracing):
    seen = []

    async def app(scope, receive, send):
        seen.extend(scope["headers"])
        await echo(scope, receive, send)

    tracing.run(app, CONNECT, DISCONNECT, headers=(pair for pair in [PARENT]))
    assert seen == [PARENT]
    assert tracing.one("GET /chat").parent is None


def test_tracestate_is_kept_up_to_its_bound_and_baggage_never():
    state = (b"tracestate", b"vendor=value")
    context = carriers.from_headers([PARENT, state, (b"baggage", b"a=b," * 1_000_000)])
    assert get_current_span(context).get_span_context().trace_state == {"vendor": "value"}
    assert len(context) == 1
    long = b",".join(b"vendor%d=%s" % (number, b"x" * 60) for number in range(30))
    for value in (long, b"v=" + b"x" * 1_000_000):
        context = carriers.from_headers([PARENT, (b"tracestate", value)])
        assert remote_trace(context) == TRACE
        assert not get_current_span(context).get_span_context().trace_state


@pytest.mark.parametrize(("length", "kept"), [(1024, True), (1025, False)])
def test_tracestate_is_kept_up_to_exactly_its_bound(length, kept):
    state = ",".join(f"{key}=".ljust(256, "x") for key in "abc") + ",d="
    headers = [PARENT, (b"tracestate", state.ljust(length, "x").encode())]
    found = get_current_span(carriers.from_headers(headers)).get_span_context().trace_state
    assert list(found) == (list("abcd") if kept else [])


@pytest.mark.parametrize(("more", "trace_id"), [(0, TRACE), (1, None)])
def test_a_message_is_looked_into_up_to_exactly_its_bound(more, trace_id):
    message = INIT.ljust(carriers.MAX_MESSAGE + more)
    assert remote_trace(carriers.from_message(message)) == trace_id


@pytest.mark.parametrize(
    "message",
    [
        "",
        "{",
        "[" * 8000,
        '{"type": "connection_init"}',
        '{"type": "connection_init", "payload": "traceparent"}',
        '{"type": "connection_init", "payload": {"traceparent": 5}}',
        json.dumps({"type": "subscribe", "payload": {"traceparent": TRACEPARENT}}),
        INIT + " " * carriers.MAX_MESSAGE,
        '["traceparent"]',
        "[" * 8000 + "traceparent",
        b"traceparent",
        None,
    ],
    ids=range(12),
)
def test_a_message_without_a_parent_is_none(message):
    assert carriers.from_message(message) is None


def test_a_payload_that_raises_is_none():
    class Trap(dict):
        def get(self, *_):
            raise RuntimeError

    assert carriers.from_payload(Trap()) is None
    assert carriers.from_payload([TRACEPARENT]) is None


# The connection.


def test_the_handshake_continues_the_trace_of_the_client(tracing):
    tracing.run(echo, CONNECT, text(), DISCONNECT, headers=[PARENT])
    handshake = tracing.one("GET /chat")
    assert f"{handshake.context.trace_id:032x}" == TRACE
    assert f"{handshake.parent.span_id:016x}" == SPAN
    assert handshake.parent.is_remote


def test_what_follows_is_linked_to_the_trace_in_connection_init(tracing):
    tracing.run(echo, CONNECT, text(INIT), text(), DISCONNECT)
    for name in ("websocket receive", "websocket send", "websocket connection"):
        traces = [f"{link.context.trace_id:032x}" for link in tracing.named(name)[-1].links]
        assert traces[1:] == [TRACE]


@pytest.mark.parametrize(
    "messages",
    [(INIT, OTHER_INIT), ("hello", INIT)],
    ids=["a second connection_init", "connection_init comes second"],
)
def test_one_connection_init_is_linked_to_whenever_it_comes(tracing, messages):
    tracing.run(echo, CONNECT, *map(text, messages), DISCONNECT)
    _, *others = tracing.one("websocket connection").links
    assert [f"{link.context.trace_id:032x}" for link in others] == [TRACE]


def test_a_span_that_is_current_is_no_parent_of_a_handshake(tracing):
    """Another instrumentation around ours has a trace of its own."""
    with tracing.provider.get_tracer("theirs").start_as_current_span("theirs"):
        tracing.run(echo, CONNECT, DISCONNECT)
    assert tracing.one("GET /chat").parent is None


def test_connection_init_is_not_looked_at_where_the_headers_had_a_parent(tracing):
    tracing.run(echo, CONNECT, text(OTHER_INIT), DISCONNECT, headers=[PARENT])
    assert len(tracing.one("websocket connection").links) == 1


def test_no_context_is_attached(tracing):
    seen = []

    async def app(scope, receive, send):
        seen.append(trace.get_current_span().get_span_context().is_valid)
        await echo(scope, receive, send)
        seen.append(trace.get_current_span().get_span_context().is_valid)

    tracing.run(app, CONNECT, text(), DISCONNECT)
    assert seen == [False, False]


# Sampling.


@pytest.mark.parametrize("flag", ["00", "01"])
def test_a_parent_decides_where_the_sampler_asks_it(tmp_path, flag):
    tracing = Tracing(tmp_path, sampler=ParentBased(ALWAYS_ON))
    headers = [(b"traceparent", TRACEPARENT[:-2].encode() + flag.encode())]
    tracing.run(echo, CONNECT, text(), DISCONNECT, headers=headers)
    assert bool(tracing.spans) is (flag == "01")


def test_an_unsampled_connection_makes_nothing_and_its_messages_go_the_quick_way(tmp_path):
    tracing = Tracing(tmp_path, sampler=ALWAYS_OFF)
    tracing.run(echo, CONNECT, text(), DISCONNECT)
    assert tracing.spans == []
    assert tracing.total("websocket.server.received_messages") == 1


def test_the_log_of_an_unsampled_connection_names_its_trace_too(tmp_path):
    config = Tracing(tmp_path, sampler=ALWAYS_OFF).config
    spans, context = begin(config, {"headers": [PARENT]}, 0, list)
    assert spans is None
    assert f"{context.trace_id:032x}" == TRACE


def test_where_the_sdk_is_disabled_no_log_names_a_trace(tmp_path, monkeypatch):
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    config = Tracing(tmp_path).config
    assert begin(config, {"headers": []}, 0, list) == (None, None)


def test_follow_links_keeps_a_connection_whole(tmp_path):
    def kept(sampler, name):
        tracing = Tracing(tmp_path / name, sampler=sampler, span_budget=2)
        for _ in range(60):
            tracing.run(echo, CONNECT, text(), DISCONNECT)
        return len(tracing.named("GET /chat")), len(tracing.named("websocket connection"))

    handshakes, connections = kept(FollowLinks(TraceIdRatioBased(0.5)), "follow")
    assert 0 < handshakes == connections < 60
    handshakes, connections = kept(TraceIdRatioBased(0.5), "chance")
    assert 0 < connections < handshakes


def test_follow_links_leaves_the_rest_to_the_other():
    sampler = FollowLinks(ALWAYS_OFF)
    context = carriers.from_headers([PARENT])
    links = [Link(get_current_span(context).get_span_context())]
    assert sampler.should_sample(None, 1, "a", links=links).decision.is_sampled()
    assert not sampler.should_sample(context, 1, "a", links=links).decision.is_sampled()
    assert not sampler.should_sample(None, 1, "a").decision.is_sampled()
    assert sampler.get_description() == "FollowLinks(AlwaysOffSampler)"


# Operations.


def operation(tracing, *, connected=True, **options):
    """Begin an operation within a conversation, end it after, and return its span."""
    lost: list[None] = []
    spans, _ = begin(tracing.config, {"headers": []}, 0, lambda: lost.append(None))
    began = begin_operation(
        tracing.config, list, socket=True, connection=spans if connected else None, **options
    )
    spans.answered("accepted", 1, current(tracing.config).route(None), None, None)
    return spans, began


def test_a_query_is_a_child_of_the_handshake(tracing):
    spans, began = operation(tracing)
    began.ended("query", "Me", "completed")
    span = tracing.one("query Me")
    assert span.parent.span_id == spans.context.span_id
    assert span.kind is SpanKind.SERVER
    assert dict(span.attributes) == {
        "graphql.operation.type": "query",
        "graphql.operation.name": "Me",
        "graphql.operation.end_reason": "completed",
    }


def test_a_subscription_is_a_root_linked_to_the_handshake(tracing):
    spans, began = operation(tracing)
    with tracing.provider.get_tracer("theirs").start_as_current_span("theirs"):
        began.ended("subscription", "Ticks", "client_complete", events=5, event_errors=1)
    span = tracing.one("subscription Ticks")
    assert span.parent is None
    assert [link.context for link in span.links] == [spans.context]
    assert span.attributes["graphql.subscription.events"] == 5
    assert span.attributes["graphql.subscription.event_errors"] == 1


@pytest.mark.parametrize("kind", ["query", "subscription"])
@pytest.mark.parametrize("connected", [True, False], ids=["sampled", "unsampled connection"])
def test_a_message_with_a_traceparent_decides_for_itself(tracing, kind, connected):
    _, began = operation(tracing, connected=connected, extensions={"traceparent": TRACEPARENT})
    began.ended(kind, "Op", "completed")
    assert f"{tracing.one(f'{kind} Op').parent.span_id:016x}" == SPAN


def test_an_operation_of_an_unsampled_connection_makes_nothing(tracing):
    assert begin_operation(tracing.config, list, socket=True) is None


@pytest.mark.parametrize("socket", [True, False])
def test_where_nobody_set_a_provider_no_operation_is_traced(tmp_path, socket):
    config = Tracing(tmp_path, tracer_provider=None).config
    extensions = {"traceparent": TRACEPARENT}
    assert begin_operation(config, list, socket=socket, extensions=extensions) is None


def test_an_operation_over_http_is_a_child_of_what_is_current(tracing):
    with tracing.provider.get_tracer("test").start_as_current_span("POST") as span:
        began = begin_operation(tracing.config, list, socket=False)
    began.ended("mutation", "", "completed")
    assert tracing.one("mutation").parent.span_id == span.get_span_context().span_id


@pytest.mark.parametrize(
    ("reason", "status"),
    [
        ("completed", StatusCode.UNSET),
        ("client_complete", StatusCode.UNSET),
        ("disconnected", StatusCode.UNSET),
        ("cancelled", StatusCode.UNSET),
        ("consumer_gone", StatusCode.UNSET),
        ("rejected", StatusCode.UNSET),
        ("error", StatusCode.ERROR),
    ],
)
def test_each_end_of_an_operation_has_its_status(tracing, reason, status):
    _, began = operation(tracing)
    began.ended("subscription", "Ticks", reason)
    span = tracing.one("subscription Ticks")
    assert span.status.status_code is status
    assert span.attributes["graphql.operation.end_reason"] == reason


def test_an_operation_refused_before_it_had_a_type_has_a_span(tracing):
    _, began = operation(tracing)
    began.ended(None, "\x1b[31m" + "x" * 1000, "rejected")
    (span,) = [s for s in tracing.spans if s.name.startswith("GraphQL operation")]
    assert "\x1b" not in span.name
    assert len(span.name) < 200


def test_what_an_operation_never_had_is_no_attribute(tracing, caplog):
    _, began = operation(tracing)
    began.ended(None, "", "rejected")
    span = tracing.one("GraphQL operation")
    assert dict(span.attributes) == {"graphql.operation.end_reason": "rejected"}
    assert caplog.records == []


def test_an_operation_ended_in_another_task_and_context_logs_nothing(tracing, caplog):
    async def main():
        _, began = operation(tracing)
        await asyncio.create_task(end(began))

    async def end(began):
        began.ended("subscription", "Ticks", "cancelled")

    asyncio.run(main())
    assert tracing.one("subscription Ticks")
    assert caplog.records == []


# Exemplars.


def test_exemplars_name_the_spans_that_were_sampled(tracing):
    tracing.run(echo, CONNECT, text(), DISCONNECT)
    body, kind = render(Source(tracing.config).take, "application/openmetrics-text; version=1.0.0")
    assert kind.startswith("application/openmetrics-text")
    lines = [line for line in body.decode().splitlines() if "# {" in line]
    for metric, name in {
        "websocket_server_handshake_duration_seconds": "GET /chat",
        "websocket_server_send_duration_seconds": "websocket send",
        "websocket_server_connection_duration_seconds": "websocket connection",
    }.items():
        (line,) = [line for line in lines if line.startswith(metric)]
        context = tracing.one(name).context
        assert f'trace_id="{context.trace_id:032x}"' in line
        assert f'span_id="{context.span_id:016x}"' in line
        value, moment = map(float, line.rpartition("} ")[2].split())
        assert 0 <= value < LIMIT
        assert abs(moment - time.time()) < LIMIT
    assert len(lines) == 3
    plain, _ = render(Source(tracing.config).take)
    assert b"trace_id" not in plain


@pytest.mark.parametrize("decision", [Decision.DROP, Decision.RECORD_ONLY])
def test_an_unsampled_connection_leaves_no_exemplar(tmp_path, decision):
    tracing = Tracing(tmp_path, sampler=StaticSampler(decision))
    tracing.run(echo, CONNECT, text(), DISCONNECT)
    body, _ = render(Source(tracing.config).take, "application/openmetrics-text; version=1.0.0")
    assert b"trace_id" not in body


def test_a_connection_that_rejects_has_an_exemplar_of_its_handshake_alone(tracing):
    async def app(scope, receive, send):
        await receive()
        await send({"type": "websocket.close"})

    tracing.run(app, CONNECT)
    assert tracing.names == ["GET /chat"]
