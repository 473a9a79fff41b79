"""What spans say of a conversation: by semantic conventions where there are any."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from opentelemetry.trace import Span

from ..labels import OTHER, safe_label
from ..protocol import Lifecycle
from ..store import layout as at_word

_OPCODES = ("text", "binary")


def handshake_attributes(scope: Mapping[str, Any], with_client: bool) -> dict[str, Any]:
    """Return what a scope says of a handshake."""
    version = safe_label(scope.get("http_version", "1.1"))
    attributes = {
        # Above HTTP/1.1 a WebSocket is an extended CONNECT (RFC 8441, RFC 9220).
        "http.request.method": "GET" if version.startswith("1") else "CONNECT",
        "url.scheme": safe_label(scope.get("scheme", "ws")),
        "network.protocol.name": "http",
        "network.protocol.version": version,
    }
    client = scope.get("client")
    if with_client and type(client) in (list, tuple) and client:
        attributes["client.address"] = safe_label(client[0])
    return attributes


def describe(span: Span, method: str, route: str, subprotocol: str | None, status: object) -> None:
    """Add to the span of a handshake what its answer told."""
    found: dict[str, Any] = {}
    if route != OTHER:
        span.update_name(f"{method} {route}")
        found["http.route"] = route
    if subprotocol is not None:
        found["websocket.subprotocol"] = safe_label(subprotocol)
    if type(status) is int and 100 <= status <= 599:
        found["http.response.status_code"] = status
        if status >= 500:
            found["error.type"] = str(status)  # an exception's own class replaces it
    span.set_attributes(found)


def connection_attributes(record: memoryview, lifecycle: Lifecycle, route: str) -> dict[str, Any]:
    """Return what a record and the protocol say of a connection that has ended."""
    attributes: dict[str, Any] = {
        "network.protocol.name": "websocket",
        "websocket.received.messages": at_word.counted(record, *at_word.RECEIVED),
        "websocket.received.bytes": at_word.counted(record, at_word.RECEIVED_BYTES),
        "websocket.sent.messages": at_word.counted(record, *at_word.SENT),
        "websocket.sent.bytes": at_word.counted(record, at_word.SENT_BYTES),
        "websocket.violations": record[at_word.VIOLATIONS],
    }
    if route != OTHER:
        attributes["http.route"] = route
    if lifecycle.subprotocol is not None:
        attributes["websocket.subprotocol"] = safe_label(lifecycle.subprotocol)
    if lifecycle.close_code is not None:
        attributes["websocket.close.code"] = lifecycle.close_code
    return attributes


def message(kind: int, size: int) -> dict[str, Any]:
    """Return the attributes of a message: 0 is text, 1 binary."""
    return {"websocket.message.opcode": _OPCODES[kind], "websocket.message.size": size}


_CLOSE = ("websocket.close.code", "websocket.close.initiator", "http.route")


def closed(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the span of a disconnect says, of what the connection's does."""
    return {name: attributes[name] for name in _CLOSE if name in attributes}
