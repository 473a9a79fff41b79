"""The schema that all integrations serve, with sources that end in every way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator  # Strawberry reads the annotations
from typing import Any

import strawberry

from ws_lifecycle_metrics.integrations.strawberry import LifecycleExtension


class Signals:
    """What the sources tell the test that runs them, and it tells them."""

    def __init__(self) -> None:
        self.ended, self.more = asyncio.Event(), asyncio.Event()


signals: Signals


def new_signals() -> Signals:
    global signals
    signals = Signals()
    return signals


@strawberry.type
class Query:
    @strawberry.field
    async def hello(self) -> str:
        return "hi"

    @strawberry.field
    def fail(self) -> str:
        raise ValueError("a field's")


@strawberry.type
class Mutation:
    @strawberry.mutation
    async def change(self, x: int) -> int:
        return x


@strawberry.type
class Item:
    @strawberry.field
    def n(self) -> int:
        raise ValueError("a field's")


@strawberry.type
class Uneven:
    i: int

    @strawberry.field
    def n(self) -> int | None:
        if not self.i:
            raise ValueError("the first one's")
        return self.i


@strawberry.type
class Subscription:
    @strawberry.subscription
    async def uneven(self) -> AsyncGenerator[Uneven, None]:
        for i in range(3):
            yield Uneven(i=i)

    @strawberry.subscription
    async def count(self, to: int = 3) -> AsyncGenerator[int, None]:
        for i in range(to):
            yield i

    @strawberry.subscription
    async def boom(self) -> AsyncGenerator[int, None]:
        yield 0
        raise RuntimeError("the source's")

    @strawberry.subscription
    async def refused(self) -> AsyncGenerator[int, None]:
        raise PermissionError("no")
        yield 0

    @strawberry.subscription
    async def broken_fields(self, to: int = 2) -> AsyncGenerator[Item, None]:
        for _ in range(to):
            yield Item()

    @strawberry.subscription
    async def slow(self) -> AsyncGenerator[int, None]:
        try:
            yield 0
            await signals.more.wait()
            yield 1
            await asyncio.Event().wait()
        finally:
            signals.ended.set()

    @strawberry.subscription
    async def many(self) -> AsyncGenerator[int, None]:
        try:
            for i in range(5):
                yield i
        finally:
            signals.ended.set()

    @strawberry.subscription
    async def stubborn(self) -> AsyncGenerator[int, None]:
        try:
            yield 0
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            yield 1


def make_schema(*extensions: Any) -> strawberry.Schema:
    return strawberry.Schema(Query, Mutation, Subscription, extensions=extensions)


def bare() -> strawberry.Schema:
    return make_schema()


def observed() -> strawberry.Schema:
    return make_schema(LifecycleExtension)


@strawberry.type
class SyncQuery:
    @strawberry.field
    def hello(self) -> str:
        return "hi"


def sync_schema(*extensions: Any) -> strawberry.Schema:
    return strawberry.Schema(SyncQuery, extensions=extensions)
