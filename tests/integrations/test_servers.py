"""A server that is merely imported, for its framework's tests or its own reload, is not running."""

from __future__ import annotations

import sys
import types

import pytest

from ws_lifecycle_metrics.integrations import servers


def wrapped() -> None:
    """What an outer middleware hands over: it tells nothing of the server."""


@pytest.mark.parametrize(
    ("server", "importer"),
    [("hypercorn", "quart"), ("daphne", "daphne.apps"), ("daphne", "channels.testing")],
)
def test_a_server_that_a_framework_imports_is_not_told(monkeypatch, server, importer):
    for name in (*servers.SERVERS, "quart", "daphne.apps", "channels.testing"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, server, types.ModuleType(server))
    told = servers.detect(wrapped, wrapped)
    assert told is not None
    assert told[0] == server
    monkeypatch.setitem(sys.modules, importer, types.ModuleType(importer))
    assert servers.detect(wrapped, wrapped) is None


def test_of_several_servers_that_are_imported_none_is_told(monkeypatch):
    for name in servers.SERVERS:
        monkeypatch.delitem(sys.modules, name, raising=False)
    for name in ("uvicorn", "gunicorn"):  # as gunicorn runs uvicorn's workers
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    assert servers.detect(wrapped, wrapped) is None
