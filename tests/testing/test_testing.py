"""What users get for their own suites: the driver, the recorder and the fixture."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
import trio

from tests.testing.apps import echo
from ws_lifecycle_metrics.testing import Closed, Recorder, Rejected, websocket

pytest_plugins = ["pytester"]

CONFTEST = 'pytest_plugins = ["ws_lifecycle_metrics.testing.plugin"]'


@pytest.fixture(autouse=True)
def _no_other_plugins(monkeypatch):
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")


async def rejecting(scope, receive, send):
    await receive()
    await send({"type": "websocket.close"})


async def forgetful(scope, receive, send):
    await receive()
    await send({"type": "websocket.accept"})


async def stubborn(scope, receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    await asyncio.sleep(60)


async def broken(scope, receive, send):
    raise ZeroDivisionError


async def conversation():
    async with websocket(echo, "/chat?x=1", subprotocols=["chat"]) as socket:
        assert socket.subprotocol == "chat"
        await socket.send("hello")
        assert await socket.receive() == "hello"
        await socket.send(b"\x00")
        assert await socket.receive() == b"\x00"
    assert socket.findings == []
    async with websocket(echo, subprotocols=["chat"]) as socket:
        await socket.send("close")
        with pytest.raises(Closed) as closed:
            await socket.receive()
        assert (closed.value.code, closed.value.reason) == (4001, "asked")


def test_a_conversation():
    asyncio.run(conversation())


@pytest.mark.parametrize(
    ("app", "error"),
    [(rejecting, Rejected), (broken, ZeroDivisionError), (stubborn, TimeoutError)],
    ids=["reject", "exception", "never ends"],
)
def test_what_goes_wrong_is_raised(app, error):
    async def visit():
        async with websocket(app, timeout=0.2):
            pass

    with pytest.raises(error):
        asyncio.run(visit())


@pytest.mark.parametrize(
    ("error", "what", "rules"),
    [
        (SystemExit, "raised", ["app.exception"]),
        (asyncio.CancelledError, "cancelled", []),
        (KeyboardInterrupt, "cancelled", []),
    ],
)
def test_only_what_others_end_is_recorded_as_cancelled(error, what, rules):
    entries = []

    async def ending(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        raise error

    async def receive():
        return {"type": "websocket.connect"}

    async def send(message):
        pass

    recorder = Recorder(ending, lambda scope: entries.append)
    with pytest.raises(error):
        asyncio.run(recorder({"type": "websocket"}, receive, send))
    assert (entries[-1].what, [rule.id for rule in entries[-1].findings]) == (what, rules)


def test_a_cancellation_by_trio_is_one():
    entries = []

    async def waiting(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        await trio.sleep_forever()

    async def receive():
        return {"type": "websocket.connect"}

    async def send(message):
        pass

    async def visit():
        with trio.move_on_after(0.05):
            await Recorder(waiting, lambda scope: entries.append)(
                {"type": "websocket"}, receive, send
            )

    trio.run(visit)
    assert (entries[-1].what, entries[-1].findings) == ("cancelled", ())


def test_findings_are_kept():
    async def visit():
        async with websocket(forgetful) as socket:
            await asyncio.sleep(0)
        return [rule.id for rule in socket.findings]

    assert asyncio.run(visit()) == ["app.return-without-close"]


APP = """
import asyncio, pytest
from ws_lifecycle_metrics.testing import websocket
async def app(scope, receive, send):
    await receive()
    await send({"type": "websocket.accept"})
async def visit(app):
    async with websocket(app):
        await asyncio.sleep(0)
"""


def test_the_fixture_fails_a_test_and_shows_the_timeline(pytester):
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(
        APP + "def test_it(asgi_lifecycle):\n    asyncio.run(visit(asgi_lifecycle(app)))\n"
    )
    result = pytester.runpytest_inprocess("-q")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*the protocol was broken: app.return-without-close*"])
    result.stdout.fnmatch_lines(["*websocket.accept*", "*^ app.return-without-close:*"])


@pytest.mark.parametrize(
    "how", ['ignore("app.return-without-close")', 'ignore(below="error")'], ids=["id", "severity"]
)
def test_the_fixture_can_ignore(pytester, how):
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(
        APP + f"def test_it(asgi_lifecycle):\n    asgi_lifecycle.{how}\n"
        "    asyncio.run(visit(asgi_lifecycle(app)))\n"
    )
    pytester.runpytest_inprocess("-q").assert_outcomes(passed=1)


def test_the_fixture_can_be_strict(pytester):
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(
        "import asyncio, pytest\n"
        "from ws_lifecycle_metrics import ProtocolViolation\n"
        "from ws_lifecycle_metrics.testing import websocket\n"
        "async def app(scope, receive, send):\n"
        "    await receive()\n"
        '    await send({"type": "websocket.accept"})\n'
        '    await send({"type": "websocket.accept"})\n'
        "async def visit(app):\n"
        "    async with websocket(app):\n"
        "        await asyncio.sleep(0)\n"
        "def test_it(asgi_lifecycle):\n"
        "    with pytest.raises(ProtocolViolation, match='app.accept-twice'):\n"
        "        asyncio.run(visit(asgi_lifecycle.strict(app)))\n"
        "    with pytest.raises(ValueError, match='no rule is called'):\n"
        "        asgi_lifecycle.ignore('app.nothing')\n"
    )
    pytester.runpytest_inprocess("-q").assert_outcomes(passed=1)


def test_a_violation_that_the_application_swallows_fails_a_strict_test(pytester):
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(
        "import asyncio\n"
        "from contextlib import suppress\n"
        "from ws_lifecycle_metrics.testing import websocket\n"
        "async def app(scope, receive, send):\n"
        "    await receive()\n"
        '    await send({"type": "websocket.accept"})\n'
        "    with suppress(Exception):\n"
        '        await send({"type": "websocket.accept"})\n'
        "    await receive()\n"
        "async def visit(app):\n"
        "    async with websocket(app):\n"
        "        pass\n"
        "def test_it(asgi_lifecycle):\n"
        "    asyncio.run(visit(asgi_lifecycle.strict(app)))\n"
    )
    result = pytester.runpytest_inprocess("-q")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*the protocol was broken: app.accept-twice*"])


def test_an_application_that_swallows_its_cancellation_is_left():
    over = asyncio.Event()

    async def swallowing(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        while not over.is_set():
            with suppress(asyncio.CancelledError):
                await over.wait()

    async def main():
        with pytest.raises(TimeoutError, match=r"has not ended 0\.2 s after"):
            async with websocket(swallowing, timeout=0.2):
                pass
        over.set()

    asyncio.run(asyncio.wait_for(main(), 10))


def test_a_frameworks_test_client_can_be_used(pytester):
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(
        """
        from starlette.applications import Starlette
        from starlette.routing import WebSocketRoute
        from starlette.testclient import TestClient

        async def talk(socket):
            await socket.accept()
            async for text in socket.iter_text():
                await socket.send_text(text)

        def test_client(asgi_lifecycle):
            app = Starlette(routes=[WebSocketRoute("/", talk)])
            with TestClient(asgi_lifecycle(app)).websocket_connect("/") as client:
                client.send_text("x")
                assert client.receive_text() == "x"
        """
    )
    pytester.runpytest_inprocess("-q", "-W", "ignore").assert_outcomes(passed=1)
