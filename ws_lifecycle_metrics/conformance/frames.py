"""WebSocket frames by hand: a conformance client has to make what no library would."""

from __future__ import annotations

import base64
import hashlib
import os
from typing import Final, NamedTuple

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
CONTINUATION: Final = 0
_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 1.3
MOST_PAYLOAD: Final = 64 << 20


class Frame(NamedTuple):
    """One frame as it came; `wrong` says what RFC 6455 forbids in it."""

    opcode: int
    payload: bytes
    fin: bool
    wrong: str = ""


def encode(
    opcode: int, payload: bytes, *, fin: bool = True, masked: bool = True, rsv: int = 0
) -> bytes:
    """Return the bytes of a frame; nothing is checked."""
    head = bytearray([(fin << 7) | (rsv << 4) | opcode])
    size, mask_bit = len(payload), masked << 7
    if size < 126:
        head.append(mask_bit | size)
    elif size < 1 << 16:
        head.append(mask_bit | 126)
        head += size.to_bytes(2, "big")
    else:
        head.append(mask_bit | 127)
        head += size.to_bytes(8, "big")
    if not masked:
        return bytes(head) + payload
    mask = os.urandom(4)
    return bytes(head) + mask + _masked(payload, mask)


def _masked(payload: bytes, mask: bytes) -> bytes:
    repeated = (mask * (len(payload) // 4 + 1))[: len(payload)]
    number = int.from_bytes(payload, "big") ^ int.from_bytes(repeated, "big")
    return number.to_bytes(len(payload), "big")


def decode(buffer: bytearray) -> Frame | None:
    """Take the first whole frame out of `buffer`, or return None while it is not all there."""
    if len(buffer) < 2:
        return None
    head, size, start = buffer[0], buffer[1] & 0x7F, 2
    if size > 125:
        start = 4 if size == 126 else 10
        if len(buffer) < start:
            return None
        size = int.from_bytes(buffer[2:start], "big")
    masked = bool(buffer[1] & 0x80)
    start += 4 * masked
    if size > MOST_PAYLOAD:
        return Frame(head & 15, b"", True, f"a frame of {size} bytes")
    if len(buffer) < start + size:
        return None
    payload = bytes(buffer[start : start + size])
    del buffer[: start + size]
    opcode, fin = head & 15, bool(head & 0x80)
    return Frame(opcode, payload, fin, _wrong(head, masked, payload))


def _wrong(head: int, masked: bool, payload: bytes) -> str:
    opcode, fin = head & 15, bool(head & 0x80)
    if masked:
        return "a masked frame (5.1)"
    if head & 0x70:
        return "a reserved bit (5.2)"
    if opcode not in (CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG):
        return f"opcode {opcode} (5.2)"
    if opcode >= CLOSE and (len(payload) > 125 or not fin):
        return f"a control frame of {len(payload)} bytes (5.5)"
    if opcode == CLOSE:
        return _wrong_close(payload)
    return ""


def _wrong_close(payload: bytes) -> str:
    if not payload:
        return ""
    code = close_code(payload)
    if code is None:
        return "a close frame of one byte (5.5.1)"
    if not (1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999):
        return f"the close code {code} (7.4)"
    return "" if is_utf8(payload[2:]) else "a close reason that is no UTF-8 (5.5.1)"


def close_code(payload: bytes) -> int | None:
    """Return the code of a close frame's payload, None if it has none."""
    return int.from_bytes(payload[:2], "big") if len(payload) >= 2 else None


def is_utf8(data: bytes) -> bool:
    """Tell if `data` is valid UTF-8."""
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def new_key() -> str:
    """Return a fresh Sec-WebSocket-Key."""
    return base64.b64encode(os.urandom(16)).decode()


def accept_key(key: str) -> str:
    """Return the Sec-WebSocket-Accept that answers `key` (RFC 6455 4.2.2)."""
    return base64.b64encode(hashlib.sha1(key.encode() + _GUID).digest()).decode()
