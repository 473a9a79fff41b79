"""A host of a fleet, in one process: what its sidecar would answer to a scrape.

Each worker is a thread with an event loop and a segment of its own. It serves a connection on
each route, which stays open, and runs each GraphQL operation once.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncGenerator, Mapping  # Strawberry reads the annotations
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import strawberry
from prometheus_client.parser import text_string_to_metric_families

from ws_lifecycle_metrics import Config, LifecycleMiddleware
from ws_lifecycle_metrics.integrations.strawberry import LifecycleExtension
from ws_lifecycle_metrics.store.snapshot import Source
from ws_lifecycle_metrics.telemetry.prometheus import render
from ws_lifecycle_metrics.watchdog.kernel import Kernel

BAR = 800
"""Series a host, of the size below."""

WORKERS = 8
GRAPHQL = "/graphql"
ROUTES = (GRAPHQL, "/chat/{room}", "/notifications")
"""Beside them `other` is there, as on every host."""

MIXED = {"subscription": 4, "query": 3, "mutation": 3}
SUBSCRIPTIONS = {"subscription": 10}
"""GraphQL operations by type: what an application has, and the most that 10 can cost."""

LIMIT = 60.0


@strawberry.type
class Query:
    value: int = 1


@strawberry.type
class Mutation:
    @strawberry.mutation
    def value(self) -> int:
        return 1


@strawberry.type
class Subscription:
    @strawberry.subscription
    async def value(self) -> AsyncGenerator[int, None]:
        yield 1


ROOT_VALUE = Query()
SCHEMA = strawberry.Schema(Query, Mutation, Subscription, extensions=[LifecycleExtension])


async def operate(operations: Mapping[str, int]) -> None:
    """Run so many operations of each type, each under a name of its own."""
    for kind, number in operations.items():
        for index in range(number):
            text = f"{kind} {kind.capitalize()}{index} {{ value }}"
            if kind == "subscription":
                async for _ in await SCHEMA.subscribe(text):
                    pass
            else:
                await SCHEMA.execute(text, root_value=ROOT_VALUE)


class Worker(threading.Thread):
    """Serves a connection on each route from `start` to `leave`."""

    def __init__(self, config: Config, operations: Mapping[str, int]) -> None:
        super().__init__(daemon=True)
        self._operations = operations
        self._app = LifecycleMiddleware(self._serve, config=config)
        self.ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._over = asyncio.Event()

    def run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._connect())
        self._loop.close()

    def leave(self) -> None:
        """Let all clients go."""
        with suppress(RuntimeError):  # it has ended by itself
            self._loop.call_soon_threadsafe(self._over.set)
        self.join(LIMIT)

    async def _connect(self) -> None:
        told = [asyncio.Event() for _ in ROUTES]
        tasks = [
            asyncio.create_task(self._client(path, event))
            for path, event in zip(ROUTES, told, strict=True)
        ]
        for event in told:
            await event.wait()
        self.ready.set()
        await asyncio.gather(*tasks)

    async def _client(self, path: str, served: asyncio.Event) -> None:
        events = [{"type": "websocket.connect"}, {"type": "websocket.receive", "text": "hello"}]

        async def receive() -> Any:
            if events:
                return events.pop(0)
            served.set()
            await self._over.wait()
            return {"type": "websocket.disconnect", "code": 1001}

        async def send(_message: Any) -> None:
            pass

        scope = {
            "type": "websocket",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "scheme": "ws",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [],
            "extensions": {},
            "client": ("127.0.0.1", 40000),
            "server": ("127.0.0.1", 8000),
            "subprotocols": ["graphql-transport-ws"] if path == GRAPHQL else [],
        }
        await self._app(scope, receive, send)

    async def _serve(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        offered = next(iter(scope["subprotocols"]), None)
        await send({"type": "websocket.accept", "subprotocol": offered})
        await receive()
        await send({"type": "websocket.send", "text": "hello"})
        if scope["path"] == GRAPHQL:
            await operate(self._operations)
        await receive()


def scrape(folder: Path, operations: Mapping[str, int]) -> str:
    """Return what the sidecar of such a host answers while all connections are open."""
    config = Config(service="host", directory=str(folder), route=lambda scope: scope["path"])
    source, kernel = Source(config), Kernel()
    with ExitStack() as stack:
        workers = [Worker(config, operations) for _ in range(WORKERS)]
        for worker in workers:
            worker.start()
            stack.callback(worker.leave)
        for worker in workers:
            if not worker.ready.wait(LIMIT):
                raise TimeoutError("a worker of the host did not get ready")
        kernel.look(source.take().workers)
        source.views = kernel.views
        return render(source.take)[0].decode()


def series(text: str) -> Counter[str]:
    """Count the series of a scrape by metric."""
    return Counter(
        family.name + "_total" * (family.type == "counter")
        for family in text_string_to_metric_families(text)
        for _ in family.samples
    )
