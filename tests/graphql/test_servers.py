"""The GraphQL examples under their real servers, with two real clients."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import pytest
from gql import Client, gql
from gql.transport.websockets import WebsocketsTransport
from websockets.asyncio.client import connect

from tests.graphql.peer import LEGACY, PROTOCOLS
from tests.servers.harness import ROOT, Server, eventually, serving
from tests.servers.load import reset
from tests.servers.scrape import scrape, total

if TYPE_CHECKING:
    from pathlib import Path

    from websockets.asyncio.client import ClientConnection

    from tests.servers.scrape import Samples

UVICORN = "uvicorn --workers 2 examples.strawberry_{}.app:app"
SERVERS = (
    Server(name="asgi", command=UVICORN.format("asgi")),
    Server(name="fastapi", command=UVICORN.format("fastapi"), route="/graphql"),
    Server(
        name="channels-daphne",
        command="daphne examples.strawberry_channels.app:app",
        bind="--bind {host} --port {port}",
        workers=1,
        route="^graphql",
    ),
    Server(
        name="channels-granian",
        command="granian --interface asgi --workers 2 examples.strawberry_channels.app:app",
        ready="Started worker-",
        route="^graphql",
    ),
)
every_server = pytest.mark.parametrize("server", SERVERS, ids=lambda server: server.name)

COUNT = "subscription Count { count(to: 3, every: 0) }"
ENDLESS = "subscription Endless { count(to: 1000000, every: 0.01) }"
ENDS = "graphql_server_subscription_ends_total"


@every_server
def test_docstring_has_the_command_and_the_example_is_short(server: Server):
    source = ROOT.joinpath(*server.module.split(".")).with_suffix(".py").read_text()
    assert f"\n    {server.command}\n" in source.split('"""')[1]
    assert len(source.splitlines()) <= 40


@every_server
def test_subscriptions_end_as_their_clients_wanted(server: Server, tmp_path: Path):
    with serving(server, tmp_path) as running:
        asyncio.run(use(f"{running.url}/graphql"))
        books = eventually(lambda: settled(running.segments), 10, "no operation active")
        check(books, server)
    # Strawberry logs a send that finds the client gone; of ours nothing may be there.
    assert "ws_lifecycle_metrics" not in running.output().replace("/ws_lifecycle_metrics/", "")
    assert "detach" not in running.output()
    check(scrape(running.segments), server)


def settled(segments: Path) -> Samples | None:
    books = scrape(segments)
    open_ones = total(books, "websocket_server_active_connections")
    active = total(books, "graphql_server_request_active")
    return None if open_ones or active else books


def check(books: Samples, server: Server) -> None:
    each = len(PROTOCOLS)
    assert total(books, ENDS, reason="completed", graphql_operation_name="Count") == 2 * each
    assert total(books, ENDS, reason="client_complete") == 2 * each
    assert total(books, ENDS, reason="disconnected") == 2 * each
    assert total(books, ENDS, reason="rejected") == each
    assert total(books, ENDS) == 7 * each
    events = "graphql_server_subscription_event_count_total"
    assert total(books, events, graphql_operation_name="Count") == 3 * 2 * each
    assert total(books, "graphql_server_subscription_event_errors_total") == 0
    assert total(books, "graphql_server_subscription_orphans") == 0
    assert total(books, "ws_lifecycle_metrics_internal_errors_total") == 0
    routes = {"http_route": server.route, "result": "accepted"}
    assert total(books, "websocket_server_handshakes_total", **routes) == 7 * each


async def use(url: str) -> None:
    async with asyncio.timeout(30):
        for protocol in PROTOCOLS:
            await raw_count(url, protocol)
            await raw_ends(url, protocol)
            await with_gql(url, protocol)


class Raw:
    """A GraphQL client on nothing but `websockets`."""

    def __init__(self, client: ClientConnection, protocol: str) -> None:
        self.client, self.legacy = client, protocol == LEGACY

    async def say(self, **message: Any) -> None:
        await self.client.send(json.dumps(message))

    async def until(self, kind: str) -> Any:
        while (frame := json.loads(await self.client.recv()))["type"] != kind:
            pass
        return frame

    async def initialise(self) -> None:
        await self.say(type="connection_init")
        await self.until("connection_ack")

    async def subscribe(self, query: str) -> None:
        await self.say(
            id="1", type="start" if self.legacy else "subscribe", payload={"query": query}
        )

    async def first(self) -> None:
        await self.until("data" if self.legacy else "next")

    async def handled(self) -> None:
        """Wait until the stop has been read."""
        if not self.legacy:
            await self.say(type="ping")
        await self.until("complete" if self.legacy else "pong")

    async def stop(self) -> None:
        await self.say(id="1", type="stop" if self.legacy else "complete")


def dial(url: str, protocol: str) -> Any:
    return connect(url, subprotocols=[protocol], open_timeout=10, close_timeout=5)


async def raw_count(url: str, protocol: str) -> None:
    async with dial(url, protocol) as client:
        raw = Raw(client, protocol)
        await raw.initialise()
        await raw.subscribe(COUNT)
        await raw.until("complete")
    async with dial(url, protocol) as client:
        raw = Raw(client, protocol)
        await raw.initialise()
        await raw.subscribe("subscription Bad { nowhere }")
        await raw.until("error")


async def raw_ends(url: str, protocol: str) -> None:
    for how in ("complete", "close", "reset"):
        async with dial(url, protocol) as client:
            raw = Raw(client, protocol)
            await raw.initialise()
            await raw.subscribe(ENDLESS)
            await raw.first()
            if how == "complete":
                await raw.stop()
                await raw.handled()
            elif how == "reset":
                reset(client)


async def with_gql(url: str, protocol: str) -> None:
    transport = WebsocketsTransport(url=url, subprotocols=[protocol])
    async with Client(transport=transport) as session:
        numbers = [result["count"] async for result in session.subscribe(gql(COUNT))]
        assert numbers == [0, 1, 2]
    transport = WebsocketsTransport(url=url, subprotocols=[protocol])
    async with (
        Client(transport=transport) as session,
        aclosing(session.subscribe(gql(ENDLESS))) as results,
    ):
        await anext(results)
