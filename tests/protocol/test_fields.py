"""The fields of one event, apart from any order."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

import pytest

from ws_lifecycle_metrics.protocol import Event
from ws_lifecycle_metrics.protocol.fields import RECEIVED, SCOPE, SENT, Direction, read

OFFER: dict[str, Any] = {
    "subprotocols": ["chat", "evil\r\n"],
    "extensions": {"websocket.http.response": {}},
}


class Raising(Mapping[str, Any]):
    """A mapping that can't be read."""

    def __getitem__(self, key: str) -> Any:
        raise ZeroDivisionError

    def __iter__(self) -> Iterator[str]:
        raise ZeroDivisionError

    def __len__(self) -> int:
        raise ZeroDivisionError


class RaisingDict(dict[str, Any]):
    """A dict that can't be read."""

    def get(self, *_: Any) -> Any:
        raise ZeroDivisionError


class Unhashable(str):
    """A string that can't be looked up."""

    __slots__ = ()

    def __hash__(self) -> int:
        raise ZeroDivisionError


def ids(message: object, direction: Direction, scope: Mapping[str, Any] = OFFER) -> list[str]:
    return [rule.id.partition(".")[2] for rule in read(message, scope, direction)[1]]


NO_TYPES: list[object] = [None, 1, b"websocket.send", [], Unhashable("websocket.send")]


@pytest.mark.parametrize("direction", [SENT, RECEIVED, SCOPE], ids=["sent", "received", "scope"])
@pytest.mark.parametrize(
    "junk",
    [
        *(None, 1, "websocket.send", b"", [], {}, object(), Raising(), RaisingDict()),
        *({"type": kind} for kind in NO_TYPES),
    ],
    ids=repr,
)
def test_junk_is_malformed(junk: object, direction: Direction) -> None:
    assert read(junk, OFFER, direction) == (None, direction.malformed, None)


def test_a_mapping_is_flagged_and_followed() -> None:
    message = MappingProxyType({"type": "websocket.accept", "subprotocol": "chat"})
    event, findings, subprotocol = read(message, OFFER, SENT)
    assert event is Event.ACCEPT
    assert findings == SENT.malformed
    assert subprotocol == "chat"


def test_nothing_is_written_into_a_message() -> None:
    message = defaultdict(str, {"type": "websocket.close"})
    read(message, OFFER, SENT)
    assert dict(message) == {"type": "websocket.close"}


@pytest.mark.parametrize("text", ["", "x", None])
@pytest.mark.parametrize("data", [b"", b"x", None])
def test_exactly_one_payload(text: str | None, data: bytes | None) -> None:
    missing, doubled = text is None and data is None, None not in (text, data)
    sent = {"type": "websocket.send", "text": text, "bytes": data}
    received = {**sent, "type": "websocket.receive"}
    assert ids(sent, SENT) == ["send-no-payload"] * missing + ["send-both-payloads"] * doubled
    expected = ["receive-no-payload"] * missing + ["receive-both-payloads"] * doubled
    assert ids(received, RECEIVED) == expected


@pytest.mark.parametrize(
    ("fields", "sent", "received"),
    [
        pytest.param({"text": b""}, True, True, id="text as bytes"),
        pytest.param({"text": 1}, True, True, id="text as int"),
        pytest.param({"bytes": ""}, True, True, id="bytes as str"),
        pytest.param({"bytes": [1]}, True, True, id="bytes as list"),
        pytest.param({"bytes": bytearray()}, False, True, id="bytearray"),
        pytest.param({"bytes": memoryview(b"")}, False, True, id="memoryview"),
    ],
)
def test_payload_types(fields: dict[str, Any], sent: bool, received: bool) -> None:
    assert ids({"type": "websocket.send", **fields}, SENT) == ["send-wrong-type"] * sent
    expected = ["receive-wrong-type"] * received
    assert ids({"type": "websocket.receive", **fields}, RECEIVED) == expected


SENDABLE = [1000, 1001, 1002, 1003, *range(1007, 1015), 3000, 3999, 4000, 4400, 4999]


@pytest.mark.parametrize("code", SENDABLE)
def test_codes_that_may_be_sent(code: int) -> None:
    assert read({"type": "websocket.close", "code": code}, OFFER, SENT) == (Event.CLOSE, (), code)


@pytest.mark.parametrize(
    ("code", "kept"),
    [
        *((code, code) for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 2000, 2999, 5000, 65535)),
        *((code, None) for code in (-1, 65536, 10**30, True, None, "1000", 1000.0, b"", [1000])),
    ],
)
def test_codes_that_may_not_be_sent(code: object, kept: int | None) -> None:
    event, findings, detail = read({"type": "websocket.close", "code": code}, OFFER, SENT)
    assert (event, detail) == (Event.CLOSE, kept)
    assert [rule.id for rule in findings] == ["app.close-code-invalid"]


def test_a_close_without_code_is_1000() -> None:
    assert read({"type": "websocket.close"}, OFFER, SENT) == (Event.CLOSE, (), 1000)


@pytest.mark.parametrize(
    ("reason", "valid"),
    [
        pytest.param(None, True, id="none"),
        pytest.param("", True, id="empty"),
        pytest.param("x" * 123, True, id="123 bytes"),
        pytest.param("é" * 61, True, id="122 bytes in 61 characters"),
        pytest.param("x" * 124, False, id="124 bytes"),
        pytest.param("é" * 62, False, id="124 bytes in 62 characters"),
        pytest.param("x" * 100_000, False, id="100 kB"),
        pytest.param("\ud800", False, id="lone surrogate"),
        pytest.param(b"", False, id="bytes"),
        pytest.param(0, False, id="int"),
    ],
)
def test_close_reason(reason: object, valid: bool) -> None:
    findings = ids({"type": "websocket.close", "reason": reason}, SENT)
    assert findings == ([] if valid else ["close-reason-invalid"])


@pytest.mark.parametrize(
    ("subprotocol", "findings"),
    [
        pytest.param(None, [], id="none"),
        pytest.param("chat", [], id="offered"),
        pytest.param("other", ["subprotocol-not-offered"], id="not offered"),
        pytest.param("", ["subprotocol-not-offered"], id="empty"),
        pytest.param(b"chat", ["subprotocol-not-offered"], id="bytes"),
        pytest.param("evil\r\n", ["accept-headers-invalid"], id="offered with CRLF"),
        pytest.param("\0", ["subprotocol-not-offered", "accept-headers-invalid"], id="both"),
    ],
)
def test_subprotocol(subprotocol: object, findings: list[str]) -> None:
    assert ids({"type": "websocket.accept", "subprotocol": subprotocol}, SENT) == findings


@pytest.mark.parametrize("offered", [None, (), []], ids=repr)
def test_nothing_offered(offered: object) -> None:
    message = {"type": "websocket.accept", "subprotocol": "chat"}
    assert ids(message, SENT, {"subprotocols": offered}) == ["subprotocol-not-offered"]
    assert ids(message, SENT, {}) == ["subprotocol-not-offered"]


HEADERS = [
    pytest.param([], True, id="none"),
    pytest.param([(b"x-a", b"1"), [b"x-a", b"\t \xff"]], True, id="lists, tuples, obs-text"),
    pytest.param(((b"a", b""),), True, id="a tuple of them"),
    pytest.param([(b"X-A", b"")], False, id="upper case"),
    pytest.param([(b":status", b"")], False, id="pseudo header"),
    pytest.param([(b"", b"")], False, id="no name"),
    pytest.param([(b"a b", b"")], False, id="space in the name"),
    pytest.param([(b"a\n", b"")], False, id="newline after the name"),
    pytest.param([(b"a", b"\r\nset-cookie: b")], False, id="CRLF in the value"),
    pytest.param([(b"a", b"\0")], False, id="NUL in the value"),
    pytest.param([("a", b"")], False, id="name as str"),
    pytest.param([(b"a", "")], False, id="value as str"),
    pytest.param([(b"a",)], False, id="one of a pair"),
    pytest.param([b"ab"], False, id="bytes as pair"),
    pytest.param({b"a": b""}, False, id="a dict"),
    pytest.param(b"", False, id="bytes"),
    pytest.param(None, False, id="null"),
]


@pytest.mark.parametrize(("headers", "valid"), HEADERS)
def test_headers(headers: object, valid: bool) -> None:
    accept = {"type": "websocket.accept", "headers": headers}
    assert ids(accept, SENT) == ([] if valid else ["accept-headers-invalid"])
    denial = {"type": "websocket.http.response.start", "status": 403, "headers": headers}
    assert ids(denial, SENT) == ([] if valid else ["denial-invalid"])


def test_the_subprotocol_has_its_own_key() -> None:
    headers = [(b"sec-websocket-protocol", b"chat")]
    accept = {"type": "websocket.accept", "headers": headers}
    assert ids(accept, SENT) == ["accept-headers-invalid"]
    denial = {"type": "websocket.http.response.start", "status": 403, "headers": headers}
    assert ids(denial, SENT) == []


def test_no_iterator_is_consumed() -> None:
    headers, offered = iter([("bad", "header")]), iter(["chat"])
    message = {"type": "websocket.accept", "headers": headers, "subprotocol": "other"}
    assert ids(message, SENT, {"subprotocols": offered}) == []
    assert (list(headers), list(offered)) == ([("bad", "header")], ["chat"])


@pytest.mark.parametrize("status", [101, 199, 600, "403", None, True, 403.0])
def test_denial_status(status: object) -> None:
    message = {"type": "websocket.http.response.start", "status": status}
    assert ids(message, SENT) == ["denial-invalid"]


@pytest.mark.parametrize(
    ("fields", "event", "valid"),
    [
        pytest.param({}, Event.DENIAL_END, True, id="nothing"),
        pytest.param({"body": b"no"}, Event.DENIAL_END, True, id="one body"),
        pytest.param({"body": b"", "more_body": True}, Event.DENIAL_BODY, True, id="more to come"),
        pytest.param({"more_body": False}, Event.DENIAL_END, True, id="no more"),
        pytest.param({"body": "no"}, Event.DENIAL_END, False, id="text"),
        pytest.param({"body": None}, Event.DENIAL_END, False, id="null"),
    ],
)
def test_denial_body(fields: dict[str, Any], event: Event, valid: bool) -> None:
    reading = read({"type": "websocket.http.response.body", **fields}, OFFER, SENT)
    assert reading[0] is event
    assert [rule.id for rule in reading[1]] == ([] if valid else ["app.denial-invalid"])


@pytest.mark.parametrize("extensions", [{}, None, [], {"websocket.http": {}}], ids=repr)
def test_denial_needs_the_extension(extensions: object) -> None:
    message = {"type": "websocket.http.response.start", "status": 403}
    assert ids(message, SENT, {"extensions": extensions}) == ["denial-unsupported"]


@pytest.mark.parametrize(
    ("fields", "finding", "kept"),
    [
        pytest.param({"code": 1000}, [], 1000, id="1000"),
        pytest.param({"code": 4999, "reason": "x"}, [], 4999, id="4999"),
        pytest.param({}, ["disconnect-code-missing"], 1005, id="missing"),
        pytest.param({"code": None}, ["disconnect-code-missing"], 1005, id="null"),
        pytest.param({"code": "1000"}, ["disconnect-code-invalid"], None, id="str"),
        pytest.param({"code": True}, ["disconnect-code-invalid"], None, id="bool"),
        pytest.param({"code": 999}, ["disconnect-code-invalid"], 999, id="999"),
        pytest.param({"code": -(10**30)}, ["disconnect-code-invalid"], None, id="huge"),
    ],
)
def test_disconnect_code(fields: dict[str, Any], finding: list[str], kept: int | None) -> None:
    message = {"type": "websocket.disconnect", **fields}
    assert ids(message, RECEIVED) == finding
    assert read(message, OFFER, RECEIVED)[2] == kept
