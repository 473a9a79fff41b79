"""Each way in which a connection can be stuck, by a real application on a real server."""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import struct
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.graphql.peer import TRANSPORT_WS
from tests.servers.blockers import APP, GRANIAN, UVICORN, ask, dial
from tests.servers.harness import HOST, ROOT
from tests.servers.sidecar import hanging, sidecar

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.servers.harness import Running, Server
    from tests.servers.sidecar import Sidecar

THRESHOLD = 1.0
LATE = 2.0
REASONS = ("handshake", "send_blocked", "closing", "receive_withheld", "draining")
SOURCE = "tests/servers/blockers_app.py"
ORPHANS = "tests/servers/orphans_app.py"
CLOSE_FRAME = b"\x88\x82\x00\x00\x00\x00\x03\xe8"
"""A client's: final, masked by zeros, code 1000."""


def lines_of(reason: str, source: str) -> set[str]:
    """Where the application waits: the marked line, or in it the call that is the marked one."""
    mark = "# " + reason
    lines = (ROOT / source).read_text().splitlines()
    return {f"{number}" for number, line in enumerate(lines, 1) if line.endswith(mark)}


@contextmanager
def raw_client(running: Running, path: str) -> Iterator[socket.socket]:
    """Ask for a WebSocket, and from then on say and read only what the test wants."""
    key = base64.b64encode(os.urandom(16)).decode()
    with socket.create_connection((HOST, running.port), timeout=10) as client:
        lines = (
            f"GET {path} HTTP/1.1",
            f"Host: {HOST}:{running.port}",
            *("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"),
            f"Sec-WebSocket-Key: {key}",
        )
        client.sendall("".join(f"{line}\r\n" for line in (*lines, "")).encode())
        yield client


def reset(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def total(watcher: Sidecar, name: str, reason: str) -> float:
    """The sum over the routes."""
    return sum(
        value
        for (found, labels), value in watcher.metrics().items()
        if found == name and ("reason", reason) in labels
    )


def stuck(watcher: Sidecar, reason: str) -> float:
    return total(watcher, "websocket_server_stuck_connections", reason)


def detections(watcher: Sidecar, reason: str) -> float:
    return total(watcher, "websocket_server_stuck_detections_total", reason)


def see(
    watcher: Sidecar, reason: str, source: str = SOURCE, within: float = THRESHOLD + LATE + 0.5
) -> dict[str, Any]:
    """Wait until it is told everywhere; return what is told of the connection."""
    watcher.wait(lambda: stuck(watcher, reason) == 1, within, reason)

    def told() -> Any:
        found = watcher.json(f"/connections?stuck={reason}")["connections"]
        return found[0] if found and found[0]["where"] else None

    found: dict[str, Any] = watcher.wait(told, 3, f"{reason}: where it waits")[0]
    file, line, _function = found["where"].rsplit(":", 2)
    assert file.endswith(source)
    assert line in lines_of(reason, source), found["where"]
    counted = reason != "ghost"  # which the worker itself cannot see
    watcher.wait(lambda: detections(watcher, reason) == counted, 3, f"{reason}: counted once")
    return found


def see_gone(watcher: Sidecar, reason: str) -> None:
    watcher.wait(lambda: stuck(watcher, reason) == 0, 30, f"{reason}: gone")


pytestmark = pytest.mark.slow
every_server = pytest.mark.parametrize(
    "server", [pytest.param(server, id=server.name) for server in (UVICORN, GRANIAN)]
)


@every_server
def test_each_reason_is_told_with_the_line_and_gone_after(server: Server, tmp_path: Path) -> None:
    limits = {f"stuck_{reason}": THRESHOLD for reason in REASONS}
    with ExitStack() as stack:
        running = stack.enter_context(hanging(server, tmp_path, **limits))
        watcher = stack.enter_context(sidecar(tmp_path))
        opened = partial(open_client, stack, running)
        clients = {r: opened(f"/{r}") for r in ("handshake", "send_blocked", "closing")}
        expect_accept(clients["closing"])
        clients["closing"].sendall(CLOSE_FRAME)
        if server is GRANIAN:  # others deliver a disconnect after their denial
            clients["receive_withheld"] = opened("/receive_withheld")
        for reason in clients:
            assert see(watcher, reason)["stuck"] == reason
        reset(clients["send_blocked"])
        for reason in clients:
            see_gone(watcher, reason)
            assert detections(watcher, reason) == 1
        assert "is stuck: closing" in running.output()
        if server is UVICORN:
            expect_accept(opened("/draining"))
            os.kill(running.pid, signal.SIGTERM)
            see(watcher, "draining")
            watcher.wait(lambda: not watcher.json("/workers")["total"], 15, "the end of both")
            assert watcher.stuck() == {}


@every_server
def test_a_connection_without_a_socket_is_a_ghost(server: Server, tmp_path: Path) -> None:
    with (
        hanging(server, tmp_path, stuck_ghost=THRESHOLD) as running,
        sidecar(tmp_path) as watcher,
        dial(running.url) as well,
        raw_client(running, "/ghost") as client,
    ):
        expect_accept(client)
        assert ask(well, "pid")  # the most silent connection is named, if they share a worker
        reset(client)
        # The kernel's tables are read three times, and less often on a host with many sockets.
        assert see(watcher, "ghost", within=60)["stuck"] == "ghost"
        (tmp_path / "over").touch()
        see_gone(watcher, "ghost")


@every_server
def test_a_subscription_without_a_connection_is_an_orphan(server: Server, tmp_path: Path) -> None:
    app = ORPHANS.removesuffix(".py").replace("/", ".") + ":app"
    server = replace(server, command=server.command.replace(APP, app))
    with (
        hanging(server, tmp_path, stuck_orphan_subscription=THRESHOLD) as running,
        sidecar(tmp_path) as watcher,
        connect(f"{running.url}/graphql", subprotocols=[TRANSPORT_WS], proxy=None) as client,
    ):
        client.send(json.dumps({"type": "connection_init"}))
        query = {"query": "subscription { news }"}
        client.send(json.dumps({"type": "subscribe", "id": "1", "payload": query}))
        assert '"connection_ack"' in client.recv(timeout=10)
        assert '"next"' in client.recv(timeout=10)
        with pytest.raises(ConnectionClosed):
            client.recv(timeout=10)
        found = see(watcher, "orphan_subscription", ORPHANS)
        assert (found["state"], found["subscriptions"]) == ("orphaned", 1)
        see_gone(watcher, "orphan_subscription")
        assert not watcher.json("/connections")["connections"]
        assert "is stuck: orphan_subscription" in running.output()


def open_client(stack: ExitStack, running: Running, path: str) -> socket.socket:
    return stack.enter_context(raw_client(running, path))


def expect_accept(client: socket.socket) -> None:
    assert client.recv(12) == b"HTTP/1.1 101"
