"""Each way in which a connection can be stuck, by a real application on a real server."""

from __future__ import annotations

import base64
import os
import signal
import socket
import struct
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from tests.servers.blockers import GRANIAN, UVICORN
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
APP = (ROOT / SOURCE).read_text().splitlines()
CLOSE_FRAME = b"\x88\x82\x00\x00\x00\x00\x03\xe8"
"""A client's: final, masked by zeros, code 1000."""


def lines_of(reason: str) -> set[str]:
    """Where the application waits: the marked line, or in it the call that is the marked one."""
    mark = "# " + reason
    return {f"{number}" for number, line in enumerate(APP, 1) if line.endswith(mark)}


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


def stuck(watcher: Sidecar, reason: str) -> float | None:
    name = "websocket_server_stuck_connections"
    return watcher.value(name, http_route="other", reason=reason)


def detections(watcher: Sidecar, reason: str) -> float | None:
    name = "websocket_server_stuck_detections_total"
    return watcher.value(name, http_route="other", reason=reason)


def see(watcher: Sidecar, reason: str) -> dict[str, Any]:
    """Wait until it is told everywhere; return what is told of the connection."""
    watcher.wait(lambda: stuck(watcher, reason) == 1, THRESHOLD + LATE + 0.5, reason)

    def told() -> Any:
        found = watcher.json(f"/connections?stuck={reason}")["connections"]
        return found[0] if found and found[0]["where"] else None

    found: dict[str, Any] = watcher.wait(told, 3, f"{reason}: where it waits")[0]
    file, line, _function = found["where"].rsplit(":", 2)
    assert file.endswith(SOURCE)
    assert line in lines_of(reason), found["where"]
    watcher.wait(lambda: detections(watcher, reason) == 1, 3, f"{reason}: counted once")
    return found


@pytest.mark.parametrize("server", [UVICORN, GRANIAN], ids=lambda server: server.name)
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
            watcher.wait(lambda r=reason: stuck(watcher, r) == 0, 15, f"{reason}: gone")
            assert detections(watcher, reason) == 1
        assert "is stuck: closing" in running.output()
        if server is UVICORN:
            expect_accept(opened("/draining"))
            os.kill(running.pid, signal.SIGTERM)
            see(watcher, "draining")
            watcher.wait(lambda: not watcher.json("/workers")["total"], 15, "the end of both")
            assert watcher.stuck() == {}


def open_client(stack: ExitStack, running: Running, path: str) -> socket.socket:
    return stack.enter_context(raw_client(running, path))


def expect_accept(client: socket.socket) -> None:
    assert client.recv(12) == b"HTTP/1.1 101"
