"""The scope, as servers give it, and as they may not."""

from __future__ import annotations

from typing import Any

import pytest

from tests import support
from ws_lifecycle_metrics.protocol import Lifecycle

WEBSOCKET = support.scope()
GRANIAN = WEBSOCKET | {"client": ("127.0.0.1", "1"), "server": ("127.0.0.1", "2")}
DAPHNE = {key: WEBSOCKET[key] for key in ("type", "asgi", "path", "headers")} | {
    "client": ["127.0.0.1", 1]
}
UNIX_SOCKET = WEBSOCKET | {"client": None, "server": ("/run/app.sock", None)}


@pytest.mark.parametrize(
    "scope", [WEBSOCKET, GRANIAN, DAPHNE, UNIX_SOCKET], ids=["full", "granian", "daphne", "unix"]
)
def test_scopes_of_known_servers(scope: dict[str, Any]) -> None:
    assert findings(scope) == []


@pytest.mark.parametrize("key", ["type", "asgi", "path", "headers"])
def test_required_keys_of_the_scope(key: str) -> None:
    scope = {name: value for name, value in WEBSOCKET.items() if name != key}
    assert findings(scope) == ["server.scope-invalid"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("type", "http"),
        ("asgi", "3.0"),
        ("path", b"/"),
        ("headers", None),
        ("headers", [("host", "example.org")]),
        ("scheme", ""),
        ("http_version", 1.1),
        ("raw_path", "/"),
        ("query_string", ""),
        ("root_path", b""),
        ("client", "127.0.0.1"),
        ("server", ("127.0.0.1",)),
        ("subprotocols", "chat"),
        ("subprotocols", [b"chat"]),
        ("state", []),
        ("extensions", []),
    ],
)
def test_wrong_values_in_the_scope(key: str, value: object) -> None:
    scope = WEBSOCKET | {key: value}
    assert findings(scope) == ["server.scope-invalid"]


def test_no_iterator_is_consumed() -> None:
    headers, offered = iter([("bad", "header")]), iter(["chat"])
    assert findings(WEBSOCKET | {"headers": headers, "subprotocols": offered}) == []
    assert (list(headers), list(offered)) == ([("bad", "header")], ["chat"])


def findings(scope: dict[str, Any]) -> list[str]:
    return [rule.id for rule in Lifecycle(scope).opened()]
