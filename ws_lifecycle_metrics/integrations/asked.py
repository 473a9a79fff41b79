"""What the client of one connection asked for, and which of it the client has completed."""

from __future__ import annotations

import json
import re

# Type and id stand within the first characters of a frame, unless a payload comes before them: a
# JSON object has no order, and some clients' libraries sort it. Such a frame is parsed up to a
# length; of any other, what follows is never looked at.
PREFIX = 200
MOST_PARSED = 16 * 1024
BEGINNINGS, ENDS = frozenset({"subscribe", "start"}), frozenset({"complete", "stop"})
KINDS = BEGINNINGS | ENDS | {"connection_init"}
_TYPE = re.compile(r'"type"\s*:\s*"(connection_init|subscribe|start|complete|stop)"')
_ID = re.compile(r'"id"\s*:\s*("(?:[^"\\]|\\.)*"|-?[0-9]+)')

MOST_WAITING = 100
"""Operations that have not begun; an application without our extension never begins any."""


class Request:
    """An operation that the client asked for. `id` is as the client wrote it, quotes included."""

    __slots__ = ("completed", "id")

    def __init__(self, id: str | None) -> None:
        self.id = id
        self.completed = False


class Asked:
    """The operations that were asked for and have not ended, by their id.

    A framework may read ahead, so that one is completed here before it begins there. Operations
    begin in the order in which they were asked for; which one begins is not said.
    """

    __slots__ = ("_by_id", "_waiting")

    def __init__(self) -> None:
        self._by_id: dict[str | None, Request] = {}
        self._waiting: dict[Request, None] = {}  # those that have not begun, the oldest one first

    def subscribe(self, id: str | None) -> None:
        """Note that the client asks for an operation."""
        request = self._by_id[id] = Request(id)
        self._waiting[request] = None
        if len(self._waiting) > MOST_WAITING:
            self._forget(next(iter(self._waiting)))

    def complete(self, id: str | None) -> None:
        """Note that the client completes one; what has ended by itself is not meant any more."""
        request = self._by_id.get(id) or self._by_id.get(None)
        if request is not None:
            request.completed = True

    def begin(self) -> Request | None:
        """Return what begins now; None if nobody saw it asked for."""
        # What was subscribed and completed in one breath does not begin, unless it is the only one.
        request = next((r for r in self._waiting if not r.completed), None)
        request = request or next(iter(self._waiting), None)
        if request is not None:
            del self._waiting[request]
        return request

    def end(self, request: Request) -> None:
        """Forget what has begun and ended."""
        if self._by_id.get(request.id) is request:  # else the id was given again
            del self._by_id[request.id]

    def forget_waiting(self) -> None:
        """Forget what has not begun and never will."""
        for request in tuple(self._waiting):
            self._forget(request)

    def _forget(self, request: Request) -> None:
        del self._waiting[request]
        self.end(request)


def read_frame(text: str) -> tuple[str, str | None] | None:
    """Return type and id of what a client sends, None for a type that means nothing here."""
    kind = _TYPE.search(text, 0, PREFIX)
    payload = text.find('"payload"', 0, PREFIX)  # in which anything may stand
    end = PREFIX if payload < 0 else payload
    id = _ID.search(text, 0, end)
    found: tuple[str, str | None] | None = None
    if kind is not None and kind.start() < end:
        found = kind[1], None if id is None else id[1]
    is_whole = found is not None and (id is not None or found[0] not in BEGINNINGS)
    return found if is_whole or payload < 0 else _parsed(text) or found


def _parsed(text: str) -> tuple[str, str | None] | None:
    if len(text) > MOST_PARSED:
        return None
    try:
        frame = json.loads(text)
    except (ValueError, RecursionError):
        return None
    kind = frame.get("type") if type(frame) is dict else None
    if type(kind) is not str or kind not in KINDS:
        return None
    id = frame.get("id")
    return kind, json.dumps(id, ensure_ascii=False) if type(id) in (str, int) else None
