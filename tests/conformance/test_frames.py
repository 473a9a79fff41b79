"""Frames by hand: what the client makes and what it notices."""

from __future__ import annotations

import pytest

from ws_lifecycle_metrics.conformance import frames
from ws_lifecycle_metrics.conformance.handshake import Answer

SIZES = (0, 1, 125, 126, 127, 65535, 65536, 70_000)


@pytest.mark.parametrize("size", SIZES)
def test_a_frame_comes_back_byte_by_byte(size):
    payload = bytes(range(256)) * (size // 256 + 1)
    sent = frames.encode(frames.BINARY, payload[:size], masked=False)
    buffer = bytearray(sent[:-1])
    if size:
        assert frames.decode(buffer) is None
    buffer += sent[-1:]
    assert frames.decode(buffer) == (frames.BINARY, payload[:size], True, "")
    assert not buffer


@pytest.mark.parametrize("size", SIZES)
def test_masking_keeps_the_payload(size):
    buffer = bytearray(frames.encode(frames.TEXT, b"x" * size))
    frame = frames.decode(buffer)
    assert frame is not None
    assert "masked" in frame.wrong  # a server must not; the payload cannot be read then


@pytest.mark.parametrize(
    ("data", "wrong"),
    [
        (frames.encode(3, b"", masked=False), "opcode 3"),
        (frames.encode(1, b"", masked=False, rsv=4), "reserved bit"),
        (frames.encode(9, b"x" * 126, masked=False), "control frame of 126"),
        (frames.encode(8, b"\x03\xed", masked=False), "close code 1005"),
        (frames.encode(8, b"\x03", masked=False), "one byte"),
        (frames.encode(8, b"\x03\xe8\xff", masked=False), "no UTF-8"),
        (frames.encode(8, b"", masked=False), ""),
        (frames.encode(8, b"\x0f\xa1bye", masked=False), ""),
    ],
    ids=["opcode", "rsv", "long ping", "1005", "one byte", "reason", "empty close", "4001"],
)
def test_what_is_forbidden_is_noticed(data, wrong):
    frame = frames.decode(bytearray(data))
    assert frame is not None
    assert (wrong in frame.wrong) if wrong else not frame.wrong


def test_the_accept_key_is_that_of_the_standard():
    assert frames.accept_key("dGhlIHNhbXBsZSBub25jZQ==") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


@pytest.mark.parametrize(
    ("answer", "demanded", "rule"),
    [
        (Answer(403, {}), 403, None),
        (Answer(500, {}), 403, "server.status-wrong"),
        (Answer(None, {}), 0, None),
        (Answer(101, {}), 0, "server.status-wrong"),
        (Answer(403, {}), 101, "server.handshake-failed"),
        (Answer(101, {}), 101, "server.handshake-failed"),  # no sec-websocket-accept
        (Answer(500, {}), -1, None),
    ],
)
def test_answers_are_judged(answer, demanded, rule):
    problem = answer.problem(demanded, "key", None, {})
    assert (problem and problem[0]) == rule
