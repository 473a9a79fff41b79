"""Whether an application takes a GraphQL operation: trials of a refused one would tell nothing."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import Any

from ..labels import safe_label
from . import frames
from .application import MOST_MESSAGES, Approach, HandshakeRefused, ListeningClient, client_of
from .connection import Unmet
from .frames import Frame
from .play import Player
from .script import Step
from .trials import INIT, OPERATION_ID

_RESULTS = ("data", "next")
"""What a result is called by the older protocol and by the newer one."""
ACK_SECONDS = 8.0
"""Seconds for the answer to the initialisation."""
OPERATION_SECONDS = 2.0
"""Seconds for the operation's first answer; one that has nothing to say yet was taken."""


async def refusal(player: Player, approach: Approach, operation: Step) -> str:
    """Return why the application refuses the operation, in one printable line, or nothing.

    Only what the application says itself is a refusal; of all else the trials tell.
    """
    client = client_of(player, player.next_run("operation"), approach)
    said = ""
    with suppress(Unmet, OSError, HandshakeRefused):
        said = await _first_answer(client, operation)
        await client.do_leave(1000)
    client.over = True
    client.abandon()
    if not said:
        return ""
    why = safe_label(said.rstrip("."))
    return f"the operation was refused: {why}; --query takes another one"


async def _first_answer(client: ListeningClient, operation: Step) -> str:
    with suppress(TimeoutError):
        await client.do_try_open()
        await client.do_text(**INIT.options)
        async with asyncio.timeout(ACK_SECONDS):
            answer = await _answer(client, "connection_ack")
        if not isinstance(answer, str):
            await client.do_text(**operation.options)
            async with asyncio.timeout(OPERATION_SECONDS):
                answer = await _answer(client)
        return answer if isinstance(answer, str) else _message_of(answer)
    return ""


async def _answer(client: ListeningClient, kind: str = "") -> dict[str, Any] | str:
    """Return the next message of that kind, else about the operation; or how it all ended."""
    for _ in range(MOST_MESSAGES):  # a flood leaves no moment for the time-out
        message = await client.next_message()
        if message is None:
            return ""
        if isinstance(message, Frame):
            return _close_of(message)
        found: Any = None
        with suppress(ValueError, RecursionError):
            found = json.loads(message)
        if isinstance(found, dict) and (
            found.get("type") == kind if kind else found.get("id") == OPERATION_ID
        ):
            return found
    return ""


def _close_of(frame: Frame) -> str:
    """Return the code and the reason, if the code is one that GraphQL's protocols define."""
    code = frames.close_code(frame.payload)
    if code is None or not 4400 <= code < 4500:
        return ""
    return f"closed with {code} {frame.payload[2:].decode(errors='replace')}".rstrip()


def _message_of(answer: dict[str, Any]) -> str:
    """Return the first error's message, if the answer holds errors and no data."""
    payload = answer.get("payload")
    kind = answer.get("type")
    if kind in _RESULTS and isinstance(payload, dict) and payload.get("data") is None:
        errors = payload.get("errors")  # a result with errors alone; some servers send no `error`
        if not errors:
            return ""
    elif kind == "error":
        errors = payload
    else:
        return ""
    first = errors[0] if isinstance(errors, list) and errors else errors
    message = first.get("message") if isinstance(first, dict) else None
    return message if isinstance(message, str) and message else "with no message"
