"""The client's half of a WebSocket handshake: its request, and the judgement of the answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .frames import accept_key
from .journal import MARK


def request_bytes(
    host: str,
    path: str,
    run: str,
    key: str,
    subprotocols: tuple[str, ...],
    headers: tuple[tuple[str, str], ...],
) -> bytes:
    """Return the request; the run goes into the query, so that both sides can be told together.

    A given header stands in place of the one that would be sent.
    """
    query = f"{'&' if '?' in path else '?'}{MARK.decode()}{run}"
    own = [
        ("Host", host),
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Key", key),
        ("Sec-WebSocket-Version", "13"),
    ]
    if subprotocols:
        own.append(("Sec-WebSocket-Protocol", ", ".join(subprotocols)))
    given = {name.lower() for name, _ in headers}
    sent = [pair for pair in own if pair[0].lower() not in given]
    lines = [f"{name}: {value}" for name, value in (*sent, *headers)]
    return "\r\n".join([f"GET {path}{query} HTTP/1.1", *lines, "", ""]).encode("latin-1")


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a handshake: `status` is None if the connection ended without one."""

    status: int | None
    headers: Mapping[str, str]

    @classmethod
    def parse(cls, head: bytes) -> Answer:
        """Read the status line and the headers."""
        first, *rest = head.decode("latin-1").split("\r\n")
        parts = first.split()
        status = int(parts[1]) if len(parts) > 1 and parts[1].isdigit() else None
        pairs = (line.partition(":") for line in rest)
        return cls(status, {name.strip().lower(): value.strip() for name, _, value in pairs})

    def problem(
        self, status: int, key: str, chosen: str | None, answered: Mapping[str, str]
    ) -> tuple[str, str] | None:
        """Return the rule that the answer breaks, and how; see `Client.do_response`."""
        if status == -1:
            return None
        if status != 101:
            return self._refusal_problem(status)
        if self.status != 101:
            return "server.handshake-failed", f"status {self.status} instead of 101"
        if self.headers.get("sec-websocket-accept") != accept_key(key):
            return "server.handshake-failed", "wrong sec-websocket-accept"
        if chosen is not None and self.headers.get("sec-websocket-protocol", "") != chosen:
            return "server.handshake-failed", "another subprotocol than the application's"
        for name, value in answered.items():
            if self.headers.get(name) != value:
                return "server.handshake-failed", f"the header {name} is missing"
        return None

    def _refusal_problem(self, status: int) -> tuple[str, str] | None:
        if self.status == 101:
            return "server.status-wrong", "101, though the application did not accept"
        if status and self.status != status:
            return "server.status-wrong", f"{self.status or 'no status'} instead of {status}"
        return None
