"""The examples under their real servers: they behave, and the books balance."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING
from urllib.request import urlopen

import pytest

from tests.servers.harness import ROOT, SERVERS, Running, Server, eventually, serving
from tests.servers.load import (
    MESSAGES,
    Tally,
    dial,
    echo,
    mixed_load,
    rejected,
    reset,
    server_close,
)
from tests.servers.scrape import scrape, total, values_of

if TYPE_CHECKING:
    from pathlib import Path

    from tests.servers.scrape import Samples

every_server = pytest.mark.parametrize("server", SERVERS, ids=lambda server: server.name)


def source(server: Server) -> str:
    return ROOT.joinpath(*server.module.split(".")).with_suffix(".py").read_text()


@every_server
def test_docstring_has_the_command(server):
    assert f"\n    {server.command}\n" in source(server).split('"""')[1]


@every_server
def test_example_is_short(server):
    assert len(source(server).splitlines()) <= 40


@every_server
def test_example_echoes(server: Server, tmp_path: Path):
    with serving(server, tmp_path) as running:
        asyncio.run(_echo_close_reject(running.url))
    assert "Traceback" not in running.output()


async def _echo_close_reject(url: str) -> None:
    tally = Tally()
    async with asyncio.timeout(60):
        async with dial(f"{url}/echo") as client:
            await echo(client, "grüezi", tally)
            await echo(client, b"\x00\x01", tally)
        assert client.close_code == 1000
        async with dial(f"{url}/echo") as client:
            await echo(client, "soon gone", tally)
            reset(client)
        async with dial(f"{url}/echo") as client:
            assert await server_close(client, tally) == 4001
        assert await rejected(f"{url}/reject") == 403


@every_server
def test_mixed_load_balances(server: Server, tmp_path: Path):
    with serving(server, tmp_path) as running:
        tally = load_every_worker(running)
        books = eventually(lambda: settled(running.segments), 30, "active connections at 0")
        assert_balanced(books, tally)
        accepted = {"result": "accepted", "http_route": server.route}
        assert total(books, "websocket_server_handshakes_total", **accepted) == tally.accepted
    assert "Traceback" not in running.output()

    after = scrape(running.segments)
    assert_balanced(after, tally)
    assert total(after, "websocket_server_lost_connections_total") == 0
    # Hypercorn's parent kills what is left of its workers once the first one has stopped.
    assert not deaths(after) or server.name.startswith("hypercorn")


@pytest.mark.parametrize("options", ["--workers 2", "--ws wsproto"])
def test_a_sigterm_is_no_death_without_a_lifespan(options: str, tmp_path: Path):
    command = f"uvicorn --lifespan off {options} examples.uvicorn.app:app"
    server = Server(name="uvicorn", command=command, workers=2 if "2" in options else 1)
    with serving(server, tmp_path) as running:
        load_every_worker(running)
        eventually(lambda: settled(running.segments), 30, "active connections at 0")
    assert not deaths(scrape(running.segments))


def deaths(books: Samples) -> list[object]:
    """The workers that are said to have died."""
    dead = ("reason", "dead")
    return [k for k, v in books.items() if k[0] == "asgi_worker_stuck" and dead in k[1] and v]


def load_every_worker(running: Running) -> Tally:
    """Load the server until the kernel has given each worker some of it."""
    tally, server = Tally(), running.server
    messages = MESSAGES if server.sends_empty else tuple(filter(None, MESSAGES))
    # As many a worker everywhere: Daphne resets a handshake that it could not answer in 5 s.
    concurrency = 4 * server.workers

    def every_worker_has_served() -> bool:
        asyncio.run(mixed_load(running.url, tally, concurrency=concurrency, messages=messages))
        return total(scrape(running.segments), "asgi_workers_reporting") == server.workers

    eventually(every_worker_has_served, 60)
    return tally


def settled(segments: Path) -> Samples | None:
    books = scrape(segments)
    return None if total(books, "websocket_server_active_connections") else books


def assert_balanced(books: Samples, tally: Tally) -> None:
    assert_connections_balance(books, tally)
    assert_messages_balance(books, tally)
    assert total(books, "websocket_server_app_errors_total") == 0
    violations = "websocket_server_protocol_violations_total"
    assert not {labels for (name, labels), value in books.items() if name == violations and value}


def assert_connections_balance(books: Samples, tally: Tally) -> None:
    handshakes = partial(total, books, "websocket_server_handshakes_total")
    assert handshakes() == tally.attempted
    assert handshakes(result="accepted") == tally.accepted
    assert handshakes(result="rejected") == tally.rejected
    closes = partial(total, books, "websocket_server_closes_total")
    assert closes(initiator="app") == tally.ends["server"]
    assert closes(initiator="client") == tally.ends["clean"] + tally.ends["reset"]
    for route in values_of(books, "websocket_server_handshakes_total", "http_route"):
        ended_or_open = (
            closes(http_route=route)
            + total(books, "websocket_server_lost_connections_total", http_route=route)
            + total(books, "websocket_server_active_connections", http_route=route)
        )
        assert handshakes(http_route=route, result="accepted") == ended_or_open


def assert_messages_balance(books: Samples, tally: Tally) -> None:
    for opcode in ("text", "binary"):
        received = total(books, "websocket_server_received_messages_total", opcode=opcode)
        assert received == tally.sent_messages[opcode]
        sent = total(books, "websocket_server_sent_messages_total", opcode=opcode)
        assert sent == tally.received_messages[opcode]
    assert total(books, "websocket_server_received_bytes_total") == tally.sent_bytes
    assert total(books, "websocket_server_sent_bytes_total") == tally.received_bytes


def test_fastapi_example_shows_its_metrics(tmp_path: Path):
    server = next(server for server in SERVERS if server.name == "fastapi")
    with serving(server, tmp_path) as running:
        assert asyncio.run(rejected(f"{running.url}/reject")) == 403
        with urlopen(running.url.replace("ws:", "http:") + "/metrics/", timeout=10) as answer:
            text = answer.read().decode()
    assert 'websocket_server_handshakes_total{http_route="/reject",result="rejected"} 1.0' in text
