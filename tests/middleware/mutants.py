"""Middlewares with one defect each: whoever checks transparency must notice every one."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from typing import Any


class Mutant:
    """A middleware that changes nothing, for its subclasses to spoil."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> Any:
        if type(scope) is not dict or scope.get("type") != "websocket":
            return await self.app(scope, receive, send)
        return await self.run(scope, receive, send)

    async def run(self, scope: Any, receive: Any, send: Any) -> Any:
        async def receiving() -> Any:
            return await self.receive(receive)

        async def sending(message: Any) -> Any:
            return await self.send(send, message)

        return await self.app(scope, receiving, sending)

    async def receive(self, receive: Any) -> Any:
        return await receive()

    async def send(self, send: Any, message: Any) -> Any:
        return await send(message)


class SwallowsACancellation(Mutant):
    async def receive(self, receive: Any) -> Any:
        try:
            return await receive()
        except asyncio.CancelledError:
            return {"type": "websocket.disconnect", "code": 1006}


class SwallowsAnExceptionOfTheServer(Mutant):
    async def send(self, send: Any, message: Any) -> Any:
        with suppress(Exception):
            return await send(message)


class SwallowsAnExceptionOfTheApplication(Mutant):
    async def run(self, scope: Any, receive: Any, send: Any) -> Any:
        with suppress(Exception):
            return await super().run(scope, receive, send)


class RaisesAnotherException(Mutant):
    async def send(self, send: Any, message: Any) -> Any:
        try:
            return await send(message)
        except Exception as error:
            raise type(error)(*error.args) from error


class RewritesACloseCode(Mutant):
    async def send(self, send: Any, message: Any) -> Any:
        if type(message) is dict and message.get("code", 1000) != 1000:
            message["code"] = 1000
        return await send(message)


class CopiesTheMessageReceived(Mutant):
    async def receive(self, receive: Any) -> Any:
        message = await receive()
        return dict(message) if type(message) is dict else message


class CopiesTheMessageSent(Mutant):
    async def send(self, send: Any, message: Any) -> Any:
        return await send(dict(message) if type(message) is dict else message)


class MarksTheMessage(Mutant):
    async def send(self, send: Any, message: Any) -> Any:
        if type(message) is dict:
            message.setdefault("seen", True)
        return await send(message)


class RaisesOnJunk(Mutant):
    async def send(self, send: Any, message: Any) -> Any:
        message["type"].startswith("websocket.")
        return await send(message)


class RaisesOnJunkOfTheServer(Mutant):
    async def receive(self, receive: Any) -> Any:
        message = await receive()
        message.get("type")
        return message


class Prefetches(Mutant):
    async def run(self, scope: Any, receive: Any, send: Any) -> Any:
        first = [await receive()]

        async def receiving() -> Any:
            return first.pop() if first else await receive()

        return await self.app(scope, receiving, send)


class ReadsAhead(Mutant):
    async def run(self, scope: Any, receive: Any, send: Any) -> Any:
        ahead: deque[Any] = deque()

        async def receiving() -> Any:
            if not ahead:
                ahead.append(await receive())
                ahead.append(await receive())
            return ahead.popleft()

        return await self.app(scope, receiving, send)


class ReceivesAgainAfterACancellation(Mutant):
    async def receive(self, receive: Any) -> Any:
        try:
            return await receive()
        except asyncio.CancelledError:
            await receive()
            raise


class FiresAndForgetsASend(Mutant):
    async def send(self, send: Any, message: Any) -> Any:
        self.task = asyncio.ensure_future(send(message))


class AddsATask(Mutant):
    async def run(self, scope: Any, receive: Any, send: Any) -> Any:
        watch = asyncio.ensure_future(asyncio.sleep(3600))
        try:
            return await super().run(scope, receive, send)
        finally:
            watch.cancel()


class RunsTheApplicationInATask(Mutant):
    async def run(self, scope: Any, receive: Any, send: Any) -> Any:
        return await asyncio.ensure_future(super().run(scope, receive, send))


class ShieldsASend(Mutant):
    async def send(self, send: Any, message: Any) -> Any:
        return await asyncio.shield(send(message))


class TimesOutAReceive(Mutant):
    async def receive(self, receive: Any) -> Any:
        async with asyncio.timeout(3600):
            return await receive()


class GivesWay(Mutant):
    async def send(self, send: Any, message: Any) -> Any:
        await asyncio.sleep(0)
        return await send(message)


class SendsOneByOne(Mutant):
    def __init__(self, app: Any) -> None:
        super().__init__(app)
        self.lock = asyncio.Lock()

    async def send(self, send: Any, message: Any) -> Any:
        async with self.lock:
            return await send(message)


class ReordersTwoSends(Mutant):
    async def run(self, scope: Any, receive: Any, send: Any) -> Any:
        held: list[Any] = []

        async def sending(message: Any) -> Any:
            if not held and type(message) is dict and message.get("text"):
                held.append(message)
                return None
            result = await send(message)
            while held:
                await send(held.pop())
            return result

        return await self.app(scope, receive, sending)


class SendsTwice(Mutant):
    async def send(self, send: Any, message: Any) -> Any:
        try:
            return await send(message)
        except RuntimeError:
            return await send(message)


class ClosesWhatTheApplicationLeftOpen(Mutant):
    async def run(self, scope: Any, receive: Any, send: Any) -> Any:
        result = await super().run(scope, receive, send)
        with suppress(Exception):
            await send({"type": "websocket.close"})
        return result


class KeepsTheResultOfASend(Mutant):
    async def send(self, send: Any, message: Any) -> Any:
        await send(message)


class MutatesTheScope(Mutant):
    async def run(self, scope: Any, receive: Any, send: Any) -> Any:
        scope["lifecycle"] = self
        return await super().run(scope, receive, send)


class CopiesTheScope(Mutant):
    async def run(self, scope: Any, receive: Any, send: Any) -> Any:
        return await super().run(dict(scope), receive, send)


class ReadsTheHeaders(Mutant):
    async def run(self, scope: Any, receive: Any, send: Any) -> Any:
        for _ in scope.get("headers", ()):
            break
        return await super().run(scope, receive, send)


class NeedsAKeyOfTheScope(Mutant):
    async def run(self, scope: Any, receive: Any, send: Any) -> Any:
        scope["extensions"]
        return await super().run(scope, receive, send)


class CallsOnlyFunctions(Mutant):
    async def run(self, scope: Any, receive: Any, send: Any) -> Any:
        return await asyncio.ensure_future(self.app(scope, receive, send))


class StopsWithTheApplication(Mutant):
    async def run(self, scope: Any, receive: Any, send: Any) -> Any:
        over = False

        async def sending(message: Any) -> Any:
            return None if over else await send(message)

        try:
            return await self.app(scope, receive, sending)
        finally:
            over = True


MUTANTS = {cls.__name__: cls for cls in Mutant.__subclasses__()}
