"""Known faults: ranges, detection of the server, and the middleware's one line."""

from __future__ import annotations

import asyncio
import functools
import logging
import sys
import types

import pytest

from ws_lifecycle_metrics import Config, LifecycleMiddleware
from ws_lifecycle_metrics.advisories import ADVISORIES, advisories_for, release
from ws_lifecycle_metrics.integrations import servers
from ws_lifecycle_metrics.telemetry import logs


@pytest.mark.parametrize(
    ("version", "expected"),
    [("2.3.2rc1", (2, 3, 2)), ("2.8", (2, 8)), ("2.8.0", (2, 8)), ("0", ()), ("dev", ())],
)
def test_a_release_is_its_numbers(version, expected):
    assert release(version) == expected


@pytest.mark.parametrize(
    ("version", "known", "gone"),
    [
        ("2.3.1", {"granian-duplicate-connect", "granian-deadlock"}, {"granian-silent-sends"}),
        ("2.3.2", {"granian-deadlock", "granian-reject-hang"}, {"granian-duplicate-connect"}),
        ("2.7.1", {"granian-reject-hang"}, {"granian-deadlock"}),
        ("2.7.8", {"granian-pending-receive-freeze"}, {"granian-reject-hang"}),
        ("2.8.5", {"granian-silent-sends"}, {"granian-pending-receive-freeze"}),
        ("99", {"granian-close-with-pending-receive", "granian-no-pings"}, {"granian-deadlock"}),
    ],
)
def test_granian_by_version(version, known, gone):
    found = {advisory.id for advisory in advisories_for("granian", version)}
    assert known <= found
    assert not gone & found


def test_every_advisory_has_its_source_and_its_advice():
    assert len({advisory.id for advisory in ADVISORIES}) == len(ADVISORIES)
    for advisory in ADVISORIES:
        assert advisory.source
        assert advisory.advice
        assert advisory.severity in ("error", "warning")
        assert advisory.id.startswith(advisory.package.partition("-")[0])


def test_a_version_that_cannot_be_read_has_no_advisory():
    assert advisories_for("granian", "unknown") == ()


class _Bound:
    async def receive(self):
        return {"type": "websocket.connect"}


def bound(module: str):
    kind = type("Protocol", (_Bound,), {"__module__": module})
    return kind().receive


@pytest.mark.parametrize(
    ("receive", "send", "package"),
    [
        (bound("granian._granian"), bound("granian._granian"), "granian"),
        (bound("_granian.asgi"), bound("x"), "granian"),
        (bound("uvicorn.protocols.websockets.wsproto_impl"), bound("x"), "uvicorn"),
        (bound("asyncio.queues"), bound("hypercorn.protocol.ws_stream"), "hypercorn"),
        (bound("asyncio.queues"), functools.partial(bound("daphne.server")), "daphne"),
    ],
    ids=["granian", "granian older", "uvicorn", "hypercorn", "daphne"],
)
def test_servers_are_told_by_what_they_hand_over(receive, send, package):
    found = servers.detect(receive, send)
    assert found is not None
    assert found[0] == package


@pytest.mark.parametrize("thing", [None, 3, object(), len, lambda: 0])
def test_detection_never_raises(thing, monkeypatch):
    monkeypatch.setattr(sys, "modules", {})
    assert servers.detect(thing, thing) is None


def test_behind_another_wrapper_the_one_imported_server_is_told(monkeypatch):
    for name in servers.SERVERS:
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "granian", types.ModuleType("granian"))
    found = servers.detect(lambda: 0, lambda: 0)
    assert found is not None
    assert found[0] == "granian"


def test_the_middleware_says_it_once(caplog, tmp_path, monkeypatch):
    monkeypatch.setattr(logs, "_limit", logs.RateLimit())
    monkeypatch.setattr(servers, "version", lambda package: "2.3.1")
    app = LifecycleMiddleware(_http, config=Config(service="test", directory=str(tmp_path)))
    with caplog.at_level(logging.INFO, "ws_lifecycle_metrics"):
        for _ in range(3):
            asyncio.run(app({"type": "http"}, bound("granian._granian"), bound("granian.x")))
    lines = [record for record in caplog.records if "known fault" in record.getMessage()]
    assert len(lines) == 1
    assert lines[0].levelno == logging.WARNING
    assert "granian 2.3.1" in lines[0].getMessage()
    assert "granian-duplicate-connect" in lines[0].getMessage()


async def _http(scope, receive, send):
    await asyncio.sleep(0)
