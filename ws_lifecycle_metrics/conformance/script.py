"""The words in which scenarios are written: what the application does, what the client does.

A step is a verb and its arguments; `reference.Actor` plays the application's, `client.Client`
the client's. A step that demands something names the rule that is broken where it is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

LOST = frozenset({1005, 1006})
"""Codes of a disconnect without a close frame; the specification names neither."""


class Step(NamedTuple):
    """One step of a script."""

    verb: str
    options: Mapping[str, Any] = {}


def do(verb: str, **options: Any) -> Step:
    """Return the step of that verb."""
    return Step(verb, options)


Script = tuple[Step, ...]

OLDEST_SPEC = "2.0"
"""What a scope announces that has no `spec_version` (ASGI WebSocket, Connection Scope)."""


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """One life of a WebSocket: both sides' scripts, and what the specification demands of it.

    `fresh`: a server process of its own, since it may leave one that is frozen or dying.
    `needs`: an extension that the scope has to announce. `since`: the version of the specification
    that demands it, and that the scope has to announce. `tries`: a fault that depends on a race
    shows in one of so many. Times are in seconds.
    """

    id: str
    title: str
    spec: str
    app: Script
    client: Script
    fresh: bool = False
    needs: str = ""
    since: str = OLDEST_SPEC
    timeout: float = 20.0
    settle: float = 5.0
    tries: int = 1


# --- the application's steps ------------------------------------------------------------------


def receive() -> Step:
    """Wait for one event."""
    return do("receive")


def accept(**fields: Any) -> Step:
    """Accept, with these fields."""
    return do("send", message={"type": "websocket.accept", **fields})


def send(text: str) -> Step:
    """Send a text, which is legal here."""
    return do("send", message={"type": "websocket.send", "text": text})


def send_bytes(data: bytes) -> Step:
    """Send bytes, which is legal here."""
    return do("send", message={"type": "websocket.send", "bytes": data})


def close(**fields: Any) -> Step:
    """Close, or reject before the accept."""
    return do("send", message={"type": "websocket.close", **fields})


def deny(status: int, *bodies: bytes) -> Script:
    """Answer the handshake by a denial response in as many parts as there are bodies."""
    start = {"type": "websocket.http.response.start", "status": status, "headers": []}
    parts = (
        {"type": "websocket.http.response.body", "body": body, "more_body": part < len(bodies)}
        for part, body in enumerate(bodies, 1)
    )
    return tuple(do("send", message=message) for message in (start, *parts))


def illegal(must_raise: bool = False, **message: Any) -> Step:
    """Send what is not legal; `must_raise`: the server has to refuse it (Error Handling)."""
    return do("illegal", message=message, must_raise=must_raise)


def until_disconnect(codes: frozenset[int] | None = None) -> Step:
    """Read all events until the disconnect, whose code must be one of `codes`."""
    return do("until_disconnect", codes=codes)


START_RECEIVE = do("start_receive")
"""Begin a receive() and go on: it stays in flight."""
END_RECEIVE = do("end_receive")
"""Wait for the receive() that has been in flight longest."""
ECHO = do("echo")
"""Send back each message until the disconnect."""
FAIL = do("fail")
"""Raise an exception out of the application."""
CONNECTED = (receive(), accept())


def pause(seconds: float) -> Step:
    """Do nothing for a while; the same for both sides."""
    return do("pause", seconds=seconds)


# --- the client's steps -----------------------------------------------------------------------


def opened(**options: Any) -> Step:
    """Open a WebSocket; the handshake must succeed. Takes `subprotocols`, `path`, `headers`."""
    return do("open", status=101, **options)


def refused(status: int | None = None, **options: Any) -> Step:
    """Try to open one; the answer must be `status`, or any refusal, a lost connection included."""
    # Some servers have a time-out of 5 seconds for what the application leaves unanswered.
    return do("open", status=status or 0, within=10.0, **options)


def text(message: str) -> Step:
    """Send a text message."""
    return do("text", message=message)


def binary(message: bytes) -> Step:
    """Send a binary message."""
    return do("binary", message=message)


def expect(*messages: str | bytes) -> Step:
    """Wait for exactly these messages, in this order."""
    return do("expect", messages=messages)


def frame(opcode: int, payload: bytes = b"", **options: Any) -> Step:
    """Send one frame; takes `fin`, `masked`, `rsv`."""
    return do("frame", opcode=opcode, payload=payload, **options)


def closes(code: int | None = 1000, reason: str = "") -> Step:
    """Send a close frame (None: an empty one) and wait for the connection's end."""
    return do("close", code=code, reason=reason)


def closed(*codes: int, reason: str | None = None, answer: bool = True) -> Step:
    """Wait for a close frame with one of `codes` (none: any), and answer it."""
    return do("closed", codes=codes, reason=reason, answer=answer)


def over() -> Step:
    """Wait for the connection's end, by a close frame or without."""
    return do("over")


RESET = do("reset")
"""Leave by an RST, as a crashed client's kernel does."""
FIN = do("fin")
"""Leave by a FIN without a close frame."""
PONG = do("pong")
"""Send a ping and wait for its pong."""
TERMINATE = do("terminate")
"""Send SIGTERM to the server."""
EXITED = do("exited")
"""Wait until the server has exited."""
