"""Judge the fields of one event, or of the scope, apart from what came before it.

What is read here comes from others and may be anything: nothing raises, no iterator is
consumed, payloads are looked at for their type only, and the work is bounded by the headers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias, TypeGuard

from .rules import RULES, Findings
from .table import Event

CLEAN: Final[Findings] = ()

# What an event is (None: nothing that the table knows, so nothing moves), the field rules that
# it breaks, and an accept's subprotocol, a close's or disconnect's code, or True for bytes by
# another name. A bare tuple: making a named one takes as long as all the rest.
Reading: TypeAlias = tuple[Event | None, Findings, Any]

_Reader: TypeAlias = Callable[[Any, Mapping[str, Any]], Reading]


class Direction:
    """Who speaks: which types it may use, and what it is told of anything else."""

    __slots__ = ("malformed", "readers", "unknown")

    def __init__(
        self, readers: Mapping[str, _Reader], malformed: Findings, unknown: Findings
    ) -> None:
        # Bare strings: a dict that has nothing else for keys is looked up faster.
        self.readers = {str(kind): reader for kind, reader in readers.items()}
        self.malformed = malformed
        self.unknown = unknown


def read(message: Any, scope: Mapping[str, Any], direction: Direction) -> Reading:
    """Read an event; ``scope`` says what was offered, and is itself read like an event."""
    try:
        kind = message.get("type")
        reader = direction.readers.get(kind)
        if reader is not None:
            reading = reader(message, scope)
            if isinstance(message, dict):
                return reading
            # A mapping is not a dict, but many servers take it: flag it, and follow it.
            return reading[0], direction.malformed + reading[1], reading[2]
        if isinstance(kind, str):
            return None, CLEAN if _is_announced(kind, scope) else direction.unknown, None
    except Exception:  # noqa: BLE001  a foreign object may raise anything when it is read
        return None, direction.malformed, None
    return None, direction.malformed, None


def _is_announced(kind: str, scope: Mapping[str, Any]) -> bool:
    extensions = scope.get("extensions")
    return isinstance(extensions, dict) and any(
        kind == name or kind.startswith(f"{name}.") for name in extensions
    )


def _finding(rule_id: str) -> Findings:
    return (RULES[rule_id],)


# --- what the application sends ---------------------------------------------------------------

_TOKEN: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")  # RFC 9110 5.6.2, in lower case
_CONTROL: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_CONTROL_BYTES: Final = re.compile(_CONTROL.pattern.encode("ascii"))
_BYTES_LIKE: Final = (bytes, bytearray, memoryview)
_MAX_REASON: Final = 123  # bytes: RFC 6455 5.5
_DENIAL_EXTENSION: Final = "websocket.http.response"

_HEADERS_INVALID: Final = _finding("app.accept-headers-invalid")
_NOT_OFFERED: Final = _finding("app.subprotocol-not-offered")
_CODE_INVALID: Final = _finding("app.close-code-invalid")
_REASON_INVALID: Final = _finding("app.close-reason-invalid")
_DENIAL_INVALID: Final = _finding("app.denial-invalid")
_DENIAL_UNSUPPORTED: Final = _finding("app.denial-unsupported")

# The member is bound once: on Python 3.11 reading it from the class costs more than a dict.
_ACCEPT, _SEND, _CLOSE = Event.ACCEPT, Event.SEND, Event.CLOSE
_CONNECT, _RECEIVE, _DISCONNECT = Event.CONNECT, Event.RECEIVE, Event.DISCONNECT
_DENIAL_START, _DENIAL_BODY, _DENIAL_END = Event.DENIAL_START, Event.DENIAL_BODY, Event.DENIAL_END


def _read_accept(message: Mapping[str, Any], scope: Mapping[str, Any]) -> Reading:
    subprotocol = message.get("subprotocol")
    valid = _all_items(message.get("headers", ()), _is_accept_header)
    if subprotocol is None:
        return _ACCEPT, CLEAN if valid else _HEADERS_INVALID, None
    findings = CLEAN if _is_offered(subprotocol, scope) else _NOT_OFFERED
    is_str = isinstance(subprotocol, str)
    if not valid or (is_str and _CONTROL.search(subprotocol)):
        findings += _HEADERS_INVALID
    return _ACCEPT, findings, subprotocol if is_str else None


def _is_offered(subprotocol: object, scope: Mapping[str, Any]) -> bool:
    offered = scope.get("subprotocols") or ()
    if isinstance(offered, (list, tuple)):
        return subprotocol in offered
    return isinstance(subprotocol, str)  # an iterator is the application's to read: who knows


def _all_items(value: object, is_item: Callable[[Any], bool]) -> bool:
    """Check each item; only a list or tuple is looked into, since others may be read once."""
    if isinstance(value, (list, tuple)):
        return all(map(is_item, value))
    return isinstance(value, Iterable) and not isinstance(value, (str, bytes, Mapping))


def _is_pair_of_bytes(header: object) -> TypeGuard[Sequence[bytes]]:
    return (
        isinstance(header, (list, tuple))
        and len(header) == 2
        and isinstance(header[0], bytes)
        and isinstance(header[1], bytes)
    )


def _is_header(header: object) -> TypeGuard[Sequence[bytes]]:
    """Check a response header; a pseudo header is no token, because of its colon."""
    return (
        _is_pair_of_bytes(header)
        and _TOKEN.fullmatch(header[0]) is not None
        and _CONTROL_BYTES.search(header[1]) is None
    )


def _is_accept_header(header: object) -> bool:
    return _is_header(header) and header[0] != b"sec-websocket-protocol"


def _read_close(message: Mapping[str, Any], _scope: Mapping[str, Any]) -> Reading:
    code, reason = message.get("code", 1000), message.get("reason")
    findings = CLEAN if _may_be_sent(code) else _CODE_INVALID
    if reason is not None and not _is_reason(reason):
        findings += _REASON_INVALID
    return _CLOSE, findings, _code(code)


def _may_be_sent(code: object) -> bool:
    return isinstance(code, int) and (
        1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999
    )


def _is_reason(reason: object) -> bool:
    if not isinstance(reason, str) or len(reason) > _MAX_REASON:
        return False  # a character takes a byte at least: a long reason is never encoded
    try:
        return len(reason.encode()) <= _MAX_REASON
    except UnicodeEncodeError:  # a lone surrogate
        return False


def _code(code: object) -> int | None:
    """Keep what a close frame could carry: an unsigned 16-bit number, and no bool."""
    if isinstance(code, int) and not isinstance(code, bool) and 0 <= code <= 0xFFFF:
        return int(code)
    return None


def _read_denial_start(message: Mapping[str, Any], scope: Mapping[str, Any]) -> Reading:
    if not _can_deny(scope):
        return None, _DENIAL_UNSUPPORTED, None
    status = message.get("status")
    valid = (
        isinstance(status, int)
        and 200 <= status <= 599
        and _all_items(message.get("headers", ()), _is_header)
    )
    return _DENIAL_START, CLEAN if valid else _DENIAL_INVALID, None


def _read_denial_body(message: Mapping[str, Any], scope: Mapping[str, Any]) -> Reading:
    if not _can_deny(scope):
        return None, _DENIAL_UNSUPPORTED, None
    event = _DENIAL_BODY if message.get("more_body", False) else _DENIAL_END
    valid = isinstance(message.get("body", b""), _BYTES_LIKE)
    return event, CLEAN if valid else _DENIAL_INVALID, None


def _can_deny(scope: Mapping[str, Any]) -> bool:
    extensions = scope.get("extensions")
    return isinstance(extensions, dict) and _DENIAL_EXTENSION in extensions


# --- what both carry: one payload -------------------------------------------------------------


def _payload_reader(event: Event, rule: str) -> _Reader:
    """Make the reader of a message; the ids of its three rules begin with ``rule``."""
    clean: Reading = event, CLEAN, None
    no_payload: Reading = event, _finding(f"{rule}-no-payload"), None
    both: Reading = event, _finding(f"{rule}-both-payloads"), None
    wrong_type: Reading = event, _finding(f"{rule}-wrong-type"), None
    # Most servers send a bytearray; an application may rely on the bytes that it was promised.
    tolerated: Reading = wrong_type if event is _RECEIVE else (event, CLEAN, True)

    def read(message: Mapping[str, Any], _scope: Mapping[str, Any]) -> Reading:
        text, data = message.get("text"), message.get("bytes")
        if text is None and data is None:
            return no_payload
        if text is not None and data is not None:
            return both
        if isinstance(text, str) or isinstance(data, bytes):
            return clean
        return tolerated if isinstance(data, _BYTES_LIKE) else wrong_type

    return read


# --- what the server delivers -----------------------------------------------------------------

_CODE_MISSING: Final = _finding("server.disconnect-code-missing")
_CODE_OUT_OF_RANGE: Final = _finding("server.disconnect-code-invalid")


def _read_connect(_message: Mapping[str, Any], _scope: Mapping[str, Any]) -> Reading:
    return _CONNECT, CLEAN, None


def _read_disconnect(message: Mapping[str, Any], _scope: Mapping[str, Any]) -> Reading:
    code = message.get("code")
    if code is None:
        return _DISCONNECT, _CODE_MISSING, 1005
    valid = isinstance(code, int) and 1000 <= code <= 4999
    return _DISCONNECT, CLEAN if valid else _CODE_OUT_OF_RANGE, _code(code)


# --- the scope --------------------------------------------------------------------------------

_REQUIRED: Final[Mapping[str, Callable[[Any], bool]]] = {
    "asgi": lambda value: isinstance(value, dict),
    "path": lambda value: isinstance(value, str),
    "headers": lambda value: _all_items(value, _is_pair_of_bytes),
}
_OPTIONAL: Final[Mapping[str, Callable[[Any], bool]]] = {
    "http_version": lambda value: isinstance(value, str),
    "scheme": lambda value: isinstance(value, str) and value != "",
    "raw_path": lambda value: isinstance(value, bytes),
    "query_string": lambda value: isinstance(value, bytes),
    "root_path": lambda value: isinstance(value, str),
    "client": lambda value: _is_address(value),
    "server": lambda value: _is_address(value),
    "subprotocols": lambda value: _all_items(value, lambda item: isinstance(item, str)),
    "state": lambda value: isinstance(value, dict),
    "extensions": lambda value: isinstance(value, dict),
}
_SCOPE_INVALID: Final = _finding("server.scope-invalid")


def _is_address(value: object) -> bool:
    """Check a host and its port, whose type is free: None for a socket's path, str on Granian."""
    return isinstance(value, (list, tuple)) and len(value) == 2 and isinstance(value[0], str)


def _read_scope(scope: Mapping[str, Any], _scope: Mapping[str, Any]) -> Reading:
    valid = all(key in scope and check(scope[key]) for key, check in _REQUIRED.items()) and all(
        scope.get(key) is None or check(scope[key]) for key, check in _OPTIONAL.items()
    )
    return None, CLEAN if valid else _SCOPE_INVALID, None


# --- which reader reads which type ------------------------------------------------------------

SENT: Final = Direction(
    {
        Event.ACCEPT: _read_accept,
        Event.SEND: _payload_reader(_SEND, "app.send"),
        Event.CLOSE: _read_close,
        Event.DENIAL_START: _read_denial_start,
        Event.DENIAL_BODY: _read_denial_body,
    },
    malformed=_finding("app.malformed-event"),
    unknown=_finding("app.unknown-event"),
)
RECEIVED: Final = Direction(
    {
        Event.CONNECT: _read_connect,
        Event.RECEIVE: _payload_reader(_RECEIVE, "server.receive"),
        Event.DISCONNECT: _read_disconnect,
    },
    malformed=_finding("server.malformed-event"),
    unknown=_finding("server.unknown-event"),
)
SCOPE: Final = Direction(
    {"websocket": _read_scope}, malformed=_SCOPE_INVALID, unknown=_SCOPE_INVALID
)
