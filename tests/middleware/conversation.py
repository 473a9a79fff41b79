"""Conversations as text: one line an event, the exact books behind them.

< connect | text WORD | bytes N | disconnect [CODE]        the application receives it
> accept [SUBPROTOCOL] | text WORD | bytes N | close [CODE] | deny | body [more]
>! …      the server raises a RuntimeError at this send, and the application goes on
>? …      it raises an OSError: the client is gone
raise     the application raises
cancel    the application is cancelled while it waits to receive
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from tests.support import DENIAL, Peer, scope, until_pause

if TYPE_CHECKING:
    from collections.abc import Callable

SCOPE = {"subprotocols": ["chat"], "extensions": {DENIAL: {}}}


class Broken(Exception):  # noqa: N818  # what an application raises is its own affair
    """The application's own exception."""


def event(side: str, words: list[str]) -> dict[str, Any]:
    """Return the event that a line means."""
    kind, arguments = words[0], words[1:]
    message = "websocket.receive" if side == "<" else "websocket.send"
    events: dict[str, Callable[[], dict[str, Any]]] = {
        "connect": lambda: {"type": "websocket.connect"},
        "accept": lambda: {"type": "websocket.accept", "subprotocol": (*arguments, None)[0]},
        "text": lambda: {"type": message, "text": arguments[0]},
        "bytes": lambda: {"type": message, "bytes": bytes(int(arguments[0]))},
        "empty": lambda: {"type": message},
        "disconnect": lambda: {"type": "websocket.disconnect", **_code(arguments)},
        "close": lambda: {"type": "websocket.close", **_code(arguments)},
        "deny": lambda: {"type": f"{DENIAL}.start", "status": 403, "headers": []},
        "body": lambda: {"type": f"{DENIAL}.body", "body": b"no", "more_body": bool(arguments)},
        "unknown": lambda: {"type": "websocket.ping"},
    }
    return events[kind]()


def _code(arguments: list[str]) -> dict[str, int]:
    return {"code": int(arguments[0])} if arguments else {}


class Conversation:
    """Plays the lines, on both sides, through an application that a middleware has wrapped."""

    def __init__(self, wrap: Callable[[Any], Any], text: str, **fields: Any) -> None:
        lines = [line.split() for line in text.replace(";", "\n").splitlines() if line.strip()]
        self.lines = lines
        events = [event("<", line[1:]) for line in lines if line[0] == "<"]
        errors = {">!": RuntimeError("flow"), ">?": OSError("gone")}
        sends = [line[0] for line in lines if line[0].startswith(">")]
        self.peer = Peer(events, {n: errors[s] for n, s in enumerate(sends) if s in errors})
        app = wrap(self.app)
        self.run = app(scope(**SCOPE | fields), self.peer.receive, self.peer.send)

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        for line in self.lines:
            match line:
                case ["<", *_] | ["cancel"]:
                    await receive()
                case [">", *words]:
                    await send(event(">", words))
                case [">!" | ">?", *words]:
                    with suppress(RuntimeError, OSError):
                        await send(event(">", words))
                case ["raise"]:
                    raise Broken

    def play(self) -> BaseException | None:
        """Run to the end; return what left the application."""
        try:
            if self.lines[-1:] == [["cancel"]]:
                until_pause(self.run)
                self.run.throw(asyncio.CancelledError())
            self.run.send(None)
        except StopIteration:
            return None
        except BaseException as error:  # noqa: BLE001  # it is the result
            return error
        raise AssertionError("it still waits")

    def begin(self) -> None:
        """Run until the application waits to receive."""
        until_pause(self.run)
