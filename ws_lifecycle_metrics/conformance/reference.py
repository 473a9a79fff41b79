"""The reference application: one generic ASGI application that plays a scenario's script.

The path tells which scenario. It calls the server's receive() and send() itself, with nothing
between, since a wrapper around receive() hides some servers' deadlocks.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from ..testing.recorder import Entry, Watch
from .journal import Journal, from_environment, run_of
from .rules import WIRE_RULES
from .scenarios import SCENARIOS
from .script import OLDEST_SPEC, Scenario, Script, close, receive


class AskedToFail(Exception):  # noqa: N818  # it is no error: the script asks for it
    """What the step `fail` raises."""


class Actor:
    """Plays the application's side of one scenario."""

    def __init__(self, journal: Journal, scope: Any, receive: Any, send: Any) -> None:
        self._journal, self._run = journal, run_of(scope)
        self._scope, self._receive, self._send = scope, receive, send
        self._watch = Watch(scope, self._tell)
        self._pending: list[asyncio.Future[Any]] = []

    def _tell(self, entry: Entry) -> None:
        self._journal.write(self._run, entry)

    def finding(self, rule: str, **detail: object) -> None:
        """Note that the server broke a rule that only the script can judge."""
        self._tell(Entry(time.monotonic(), "finding", "", detail, (WIRE_RULES[rule],)))

    async def play(self, scenario: Scenario) -> None:
        """Play the whole script, and note how it ended."""
        try:
            for step in self._script(scenario):
                await getattr(self, f"do_{step.verb}")(**step.options)
        except BaseException as error:
            self._watch.ended(error)
            raise
        self._watch.ended()

    def _script(self, scenario: Scenario) -> Script:
        version = (self._scope.get("asgi") or {}).get("spec_version") or OLDEST_SPEC
        extensions = self._scope.get("extensions") or {}
        # As text: no part of a version has two digits so far.
        if scenario.since <= str(version) and (not scenario.needs or scenario.needs in extensions):
            return scenario.app
        self._tell(Entry(time.monotonic(), "unsupported"))
        return receive(), close()

    async def do_receive(self) -> Any:
        """Wait for one event."""
        self._watch.receive_called()
        try:
            message = await self._receive()
        except BaseException as error:
            self._watch.receive_raised(error)
            raise
        self._watch.received(message)
        return message

    async def do_start_receive(self) -> None:
        """Leave a receive() in flight; no coroutine is put around what the server returns."""
        self._watch.receive_called()
        self._pending.append(asyncio.ensure_future(self._receive()))
        await asyncio.sleep(0.05)  # it has to have begun

    async def do_end_receive(self) -> None:
        """Wait as Channels does: for the future, among others, until one is done."""
        future = self._pending.pop(0)
        await asyncio.wait([future], return_when=asyncio.FIRST_COMPLETED)
        try:
            self._watch.received(future.result())
        except BaseException as error:
            self._watch.receive_raised(error)
            raise

    async def do_send(self, message: dict[str, Any]) -> None:
        """Send what is legal; an exception ends the script."""
        findings = self._watch.send_called(message)
        try:
            await self._send(message)
        except BaseException as error:
            self._watch.send_raised(message, error, findings)
            raise
        self._watch.sent(message)

    async def do_illegal(self, message: dict[str, Any], must_raise: bool) -> None:
        """Send what is illegal; the script goes on whatever becomes of it."""
        try:
            await self.do_send(message)
        except Exception:  # noqa: BLE001  # each server has exceptions of its own
            return
        if must_raise:
            self.finding("server.invalid-event-accepted", event=str(message.get("type")))

    async def do_until_disconnect(self, codes: frozenset[int] | None = None) -> None:
        """Read until the disconnect, and judge its code."""
        while (message := await self.do_receive())["type"] != "websocket.disconnect":
            pass
        code = message.get("code")
        if codes is not None and code is not None and code not in codes:
            self.finding("server.disconnect-code-wrong", code=code, expected=sorted(codes))

    async def do_echo(self) -> None:
        """Send back each message until the disconnect."""
        while (message := await self.do_receive())["type"] == "websocket.receive":
            await self.do_send({**message, "type": "websocket.send"})

    async def do_pause(self, seconds: float) -> None:
        """Let the loop run, and do nothing."""
        await asyncio.sleep(seconds)

    async def do_fail(self) -> None:
        """Raise out of the application."""
        raise AskedToFail

    async def do_concurrently(self, messages: tuple[str, ...]) -> None:
        """Send all messages at the same time."""
        sends = [self.do_send({"type": "websocket.send", "text": text}) for text in messages]
        await asyncio.gather(*sends)

    async def do_receive_again(self, within: float) -> None:
        """Call receive() where the specification is silent: a wait is noted, never judged."""
        try:
            await asyncio.wait_for(self.do_receive(), within)
        except Exception as error:  # noqa: BLE001  # whatever it raises is allowed
            self._tell(Entry(time.monotonic(), "silence", "", {"error": type(error).__name__}))

    async def do_end_any_receives(self, within: float) -> None:
        """Give all receives in flight some time; what becomes of them is noted, never judged."""
        done, waiting = await asyncio.wait(self._pending, timeout=within)
        for future in waiting:
            future.cancel()
        await asyncio.wait(self._pending, timeout=1)
        for future in done:
            error = future.exception()
            if error is None:
                self._watch.received(future.result())
            else:
                self._watch.receive_raised(error)

    async def do_flood(self, size: int, count: int, unread: float) -> None:
        """Send more than any buffer holds while nobody reads, for `unread` seconds."""
        began = time.monotonic()
        for _ in range(count):
            await self.do_send({"type": "websocket.send", "bytes": bytes(size)})
        if time.monotonic() - began < unread / 2:
            self.finding("server.unbounded-send-buffer", bytes=size * count)

    async def do_send_until_told(self, seconds: float, must_end: bool) -> None:
        """Send to a client that is gone until a send raises, or for `seconds`."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                await self.do_send({"type": "websocket.send", "text": "anyone?"})
            except Exception:  # noqa: BLE001  # each server has exceptions of its own
                return
            await asyncio.sleep(0.1)
        if must_end:
            self.finding("server.loss-not-reported", seconds=seconds)

    async def do_scope(self, **expected: Any) -> None:
        """Compare keys of the scope; headers: each expected pair must be there, in order."""
        for key, value in expected.items():
            found: Any = self._scope.get(key)
            if key == "headers":
                names = {name for name, _ in value}
                found = [(bytes(n).lower(), bytes(v)) for n, v in found]
                found = [pair for pair in found if pair[0] in names]
            elif isinstance(found, (list, tuple)):
                found = list(found)
            if found != value:
                self.finding("server.scope-wrong", key=key)


async def _lifespan(receive: Any, send: Any) -> None:
    while (await receive())["type"] == "lifespan.startup":
        await send({"type": "lifespan.startup.complete"})
    await send({"type": "lifespan.shutdown.complete"})


async def _answer(send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"alive\n"})


def make_app() -> Any:
    """Return the application, with its journal opened."""
    journal = from_environment()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
        elif scope["type"] == "http":
            await _answer(send)
        else:
            scenario = SCENARIOS[scope["path"].split("/")[2]]
            await Actor(journal, scope, receive, send).play(scenario)

    return app
