"""Trace context that others send: W3C traceparent and tracestate, with every size bounded.

What is malformed, doubled or too long is ignored, as the specification asks; baggage is never
read. Nothing here raises, whatever it is given.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from opentelemetry.context import Context
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    get_current_span,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

MAX_TRACEPARENT = 128
MAX_TRACESTATE = 1024
MAX_MESSAGE = 16 * 1024
"""Characters of a GraphQL message that is looked into; a longer one is not."""

_W3C = TraceContextTextMapPropagator()


def from_headers(headers: object) -> Context | None:
    """Return the remote context in the headers of a scope; None where there is none.

    Only a list or tuple is looked at: anything else may be a generator, which the application
    is to find untouched.
    """
    if type(headers) not in (list, tuple):
        return None
    parents: list[bytes] = []
    states: list[bytes] = []
    for pair in headers:  # type: ignore[attr-defined]  # a list or tuple
        if type(pair) not in (list, tuple) or len(pair) != 2:
            continue
        name, value = pair
        if type(name) is not bytes or type(value) is not bytes:
            continue
        if len(name) == 11 and name.lower() == b"traceparent":
            parents.append(value)
        elif len(name) == 10 and name.lower() == b"tracestate":
            states.append(value)
    if len(parents) != 1:
        return None
    return _extract(parents[0].decode("latin-1"), b",".join(states).decode("latin-1"))


def from_payload(payload: object) -> Context | None:
    """Return the remote context in a `connection_init` payload or in `extensions`, or None."""
    if not isinstance(payload, Mapping):
        return None
    try:
        return _extract(payload.get("traceparent"), payload.get("tracestate"))
    except Exception:  # noqa: BLE001  # a mapping of somebody's may do anything
        return None


def from_message(text: object) -> Context | None:
    """Return the remote context in the text of a GraphQL `connection_init` message, or None."""
    message = _message_with_parent(text)
    if message is None or message.get("type") != "connection_init":
        return None
    return from_payload(message.get("payload"))


def extensions_of(text: object) -> dict[str, Any] | None:
    """Return the extensions of a GraphQL operation's message if they may name a parent, or None."""
    message = _message_with_parent(text)
    payload = message.get("payload") if message is not None else None
    found = payload.get("extensions") if type(payload) is dict else None
    return found if type(found) is dict else None


def _message_with_parent(text: object) -> dict[str, Any] | None:
    if type(text) is not str or len(text) > MAX_MESSAGE or "traceparent" not in text:
        return None
    try:
        message: Any = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return message if type(message) is dict else None


def context_of(remote: SpanContext) -> Context:
    """Return a context in which what a span context names is the parent."""
    return set_span_in_context(NonRecordingSpan(remote), Context())


def _extract(traceparent: object, tracestate: object) -> Context | None:
    if not isinstance(traceparent, str) or not 0 < len(traceparent) <= MAX_TRACEPARENT:
        return None
    carrier = {"traceparent": traceparent}
    if isinstance(tracestate, str) and 0 < len(tracestate) <= MAX_TRACESTATE:
        carrier["tracestate"] = tracestate
    found = _W3C.extract(carrier, Context())
    return found if get_current_span(found).get_span_context().is_valid else None
