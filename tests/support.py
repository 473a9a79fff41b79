"""Drive ASGI applications in this process, by hand or on a loop, and read the books after."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ws_lifecycle_metrics import catalog
from ws_lifecycle_metrics.store.snapshot import Histogram, Source

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable, Iterator

    from ws_lifecycle_metrics import Config

CONNECT = {"type": "websocket.connect"}
ACCEPT = {"type": "websocket.accept"}
CLOSE = {"type": "websocket.close", "code": 1000}
DISCONNECT = {"type": "websocket.disconnect", "code": 1000}
DENIAL = "websocket.http.response"


def scope(**fields: Any) -> dict[str, Any]:
    """Return a WebSocket scope as a server makes it."""
    return {
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "scheme": "ws",
        "path": "/",
        "raw_path": b"/",
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"test")],
        "client": ("127.0.0.1", 40000),
        "server": ("127.0.0.1", 8000),
        "subprotocols": [],
        "state": {},
        "extensions": {},
        **fields,
    }


def receive_text(text: str) -> dict[str, Any]:
    return {"type": "websocket.receive", "text": text}


def receive_bytes(data: bytes) -> dict[str, Any]:
    return {"type": "websocket.receive", "bytes": data}


def send_text(text: str) -> dict[str, Any]:
    return {"type": "websocket.send", "text": text}


def send_bytes(data: Any) -> dict[str, Any]:
    return {"type": "websocket.send", "bytes": data}


class _Pause:
    """What a coroutine yields to the hand that drives it."""

    def __await__(self) -> Iterator[_Pause]:
        yield self


async def pause() -> None:
    """Give way once: the hand decides when, or whether, the coroutine goes on."""
    await _Pause()


def finish(coroutine: Coroutine[Any, Any, Any], pauses: int = 0) -> Any:
    """Run a coroutine that gives way exactly `pauses` times; return what it returns."""
    for _ in range(pauses):
        assert isinstance(coroutine.send(None), _Pause)
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    coroutine.close()
    raise AssertionError("it still waits")


def until_pause(coroutine: Coroutine[Any, Any, Any]) -> None:
    """Run a coroutine until it gives way."""
    assert isinstance(coroutine.send(None), _Pause)


class Peer:
    """A server for one conversation: delivers `events` in order, keeps what is sent.

    An exception among the events is raised by that receive(); with no event left, receive()
    waits. `refuse` maps the number of a send (from 0) to the exception that it raises.
    """

    def __init__(
        self, events: Iterable[Any] = (), refuse: dict[int, BaseException] | None = None
    ) -> None:
        self.events = list(events)
        self.refuse = refuse or {}
        self.sent: list[Any] = []
        self.calls = 0

    async def receive(self) -> Any:
        while not self.events:
            await pause()
        event = self.events.pop(0)
        if isinstance(event, BaseException):
            raise event
        return event

    async def send(self, message: Any) -> None:
        call, self.calls = self.calls, self.calls + 1
        if call in self.refuse:
            raise self.refuse[call]
        self.sent.append(message)

    def serve(self, app: Any, **fields: Any) -> Any:
        """Run one conversation to its end, by hand."""
        return finish(app(scope(**fields), self.receive, self.send))


def books(config: Config) -> dict[tuple[str, ...], float]:
    """Return every counter that is not 0, with its labels; of a histogram how many it holds."""
    found: dict[tuple[str, ...], float] = {}
    for family in Source(config).take().families():
        # A worker's own, such as the stalls of its loop, depend on the machine.
        if family.metric.name.startswith("asgi.") or (
            family.metric.kind is catalog.Kind.GAUGE and family.metric.name not in _GAUGES
        ):
            continue
        name = family.metric.name.removeprefix("websocket.server.")
        for labels, value in family.series.items():
            number = sum(value.counts) if isinstance(value, Histogram) else value
            if number:
                found[(name, *labels)] = number
    return found


_GAUGES = {catalog.ACTIVE_CONNECTIONS.name, catalog.SWITCHED_OFF.name}


def table(text: str) -> dict[tuple[str, ...], float]:
    """Read expected books: one series a line, its labels after its name, `-` is an empty one."""
    lines = (line.split() for line in text.splitlines() if line.strip())
    return {tuple(w if w != "-" else "" for w in line[:-1]): float(line[-1]) for line in lines}


def totals(found: dict[tuple[str, ...], float], name: str) -> float:
    """Add up all series of one metric."""
    return sum(value for key, value in found.items() if key[0] == name)


def without(found: dict[tuple[str, ...], float], *names: str) -> dict[tuple[str, ...], float]:
    return {key: value for key, value in found.items() if key[0] not in names}


def unbalanced(found: dict[tuple[str, ...], float], conversations: int) -> list[str]:
    """Name what does not add up once `conversations` conversations have ended."""
    accepted = sum(v for k, v in found.items() if k[0] == "handshakes" and k[2] == "accepted")
    sent = totals(found, "sent_messages")
    sums = {
        "attempts are handshakes": (conversations, totals(found, "handshakes")),
        "each handshake has a duration": (conversations, totals(found, "handshake.duration")),
        "accepted are closes": (accepted, totals(found, "closes")),
        "accepted have a duration": (accepted, totals(found, "connection.duration")),
        "sent messages have a duration": (sent, totals(found, "send.duration")),
        "none is active": (0, totals(found, "active_connections")),
        "no fault of ours": (0, totals(found, "ws_lifecycle_metrics.internal_errors")),
    }
    return [f"{name}: {a} != {b}" for name, (a, b) in sums.items() if a != b]


def close_quietly(coroutines: Iterable[Coroutine[Any, Any, Any]]) -> None:
    for coroutine in coroutines:
        with suppress(BaseException):
            coroutine.close()
