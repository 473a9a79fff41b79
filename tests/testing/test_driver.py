"""The tiny server of `websocket()`: what an application and its test see of it."""

from __future__ import annotations

import asyncio

import pytest

from tests.testing.apps import echo
from ws_lifecycle_metrics.testing import Closed, Rejected, websocket


async def failing(scope, receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    if (await receive()).get("text") == "raise":
        await send({"type": "websocket.send", "text": "before"})
        raise ZeroDivisionError


def test_an_exception_between_messages_is_raised_where_the_test_waits():
    async def talk():
        async with websocket(failing) as socket:
            await socket.send("raise")
            assert await socket.receive() == "before"
            await socket.receive()

    with pytest.raises(ZeroDivisionError):
        asyncio.run(asyncio.wait_for(talk(), 3))


def test_an_exception_that_the_test_expects_is_raised_once():
    async def talk():
        async with websocket(failing) as socket:
            await socket.send("raise")
            await socket.receive()
            for _ in range(2):
                with pytest.raises(ZeroDivisionError):
                    await socket.receive()

    asyncio.run(asyncio.wait_for(talk(), 3))


def test_a_return_between_messages_is_told_where_the_test_waits():
    async def talk():
        async with websocket(failing) as socket:
            await socket.send("return")
            for _ in range(2):
                with pytest.raises(RuntimeError, match="ended without a close"):
                    await socket.receive()
        async with websocket(failing) as socket:
            await socket.close()
            with pytest.raises(RuntimeError, match=r"has ended$"):
                await socket.receive()

    asyncio.run(asyncio.wait_for(talk(), 3))


def test_an_end_without_an_answer_is_a_rejection():
    async def ending(scope, receive, send):
        await receive()

    async def visit():
        async with websocket(ending):
            pass

    with pytest.raises(Rejected, match="ended without an answer"):
        asyncio.run(asyncio.wait_for(visit(), 3))


@pytest.mark.parametrize(
    ("asked", "path", "raw_path", "query_string"),
    [
        ("/chat?x=1", "/chat", b"/chat", b"x=1"),
        ("/caf%C3%A9%2Fbar?x=%20&y=a/b?c", "/caf\u00e9/bar", b"/caf%C3%A9%2Fbar", b"x=%20&y=a/b?c"),
        ("/caf\u00e9 bar?x=\u00e9", "/caf\u00e9 bar", b"/caf%C3%A9%20bar", b"x=%C3%A9"),
    ],
    ids=["plain", "encoded", "to encode"],
)
def test_addresses_are_as_a_server_gives_them(asked, path, raw_path, query_string):
    scope = asyncio.run(scope_of(asked))
    found = (scope["path"], scope["raw_path"], scope["query_string"])
    assert found == (path, raw_path, query_string)


def test_headers_have_names_in_lower_case():
    scope = asyncio.run(scope_of("/", headers=[(b"Cookie", b"Id=A"), (b"X-Id", b"B")]))
    assert scope["headers"] == [(b"host", b"testserver"), (b"cookie", b"Id=A"), (b"x-id", b"B")]


async def scope_of(path, **options):
    scopes = []

    async def app(scope, receive, send):
        scopes.append(scope)
        await echo(scope, receive, send)

    async with websocket(app, path, **options):
        pass
    return scopes[0]


def talk_to(app):
    """Open, receive, and return the socket's findings and what its application met in the end."""
    met = []

    async def noting(scope, receive, send):
        try:
            await app(scope, receive, send)
        except Exception as error:
            met.append(error)
            raise

    async def talk():
        async with websocket(noting) as socket:
            with pytest.raises((Closed, RuntimeError)):
                await socket.receive()
        return [rule.id for rule in socket.findings], met

    return asyncio.run(asyncio.wait_for(talk(), 3))


@pytest.mark.parametrize(
    ("message", "why", "rule"),
    [
        ({"type": "websocket.accept"}, "takes no websocket.accept", "app.accept-twice"),
        ({"type": "websocket.sned"}, "takes no websocket.sned", "app.unknown-event"),
        ({"type": "websocket.send"}, "text or bytes", "app.send-no-payload"),
    ],
)
def test_what_an_open_websocket_does_not_take_is_raised_in_the_application(message, why, rule):
    async def mistaken(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        await send(message)

    findings, (error,) = talk_to(mistaken)
    assert type(error) is RuntimeError
    assert why in str(error)
    assert findings == [rule, "app.exception"]


def test_a_send_after_its_own_close_tells_the_application_so():
    async def late(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close"})
        with pytest.raises(RuntimeError, match="the application has closed"):
            await send({"type": "websocket.send", "text": "late"})

    assert talk_to(late) == (["app.send-after-close"], [])


def test_a_send_to_a_client_that_left_raises_oserror():
    met = []

    async def pushing(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        met.append(await receive())
        try:
            await send({"type": "websocket.send", "text": "late"})
        except OSError as error:
            met.append(str(error))

    async def visit():
        async with websocket(pushing):
            pass

    asyncio.run(visit())
    disconnect = {"type": "websocket.disconnect", "code": 1000, "reason": ""}
    assert met == [disconnect, "the client is gone"]


def test_closed_is_raised_again():
    async def closing(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": "last"})
        await send({"type": "websocket.close"})

    async def talk():
        async with websocket(closing) as socket:
            assert await socket.receive() == "last"
            for _ in range(2):
                with pytest.raises(Closed) as closed:
                    await socket.receive()
                assert (closed.value.code, closed.value.reason) == (1000, "")

    asyncio.run(asyncio.wait_for(talk(), 3))


def test_an_application_that_closed_is_told_its_own_code():
    met = []

    async def closing(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close", "code": 4001})
        met.append(await receive())

    assert talk_to(closing) == ([], [])
    assert met == [{"type": "websocket.disconnect", "code": 4001, "reason": ""}]


def test_the_client_leaves_an_application_that_denies():
    met = []

    async def denying(scope, receive, send):
        await receive()
        await send({"type": "websocket.http.response.start", "status": 403, "headers": []})
        try:
            await asyncio.Event().wait()
        finally:
            met.append(await receive())

    async def visit():
        async with websocket(denying):
            pass

    with pytest.raises(Rejected, match=r"websocket\.http\.response\.start"):
        asyncio.run(asyncio.wait_for(visit(), 3))
    assert met == [{"type": "websocket.disconnect", "code": 1006, "reason": ""}]


@pytest.mark.parametrize(("together", "findings"), [(2, ["app.receive-concurrent"]), (1, [])])
def test_receives_at_the_same_time_are_found(together, findings):
    waiting = asyncio.Event()

    async def reading(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        reads = [asyncio.ensure_future(receive()) for _ in range(together)]
        await asyncio.sleep(0)  # they have begun
        waiting.set()
        await asyncio.gather(*reads)
        await receive()
        await send({"type": "websocket.close"})

    async def talk():
        async with websocket(reading) as socket:
            await waiting.wait()
            for _ in range(together + 1):
                await socket.send("x")
            with pytest.raises(Closed):
                await socket.receive()
        return [rule.id for rule in socket.findings]

    assert asyncio.run(asyncio.wait_for(talk(), 3)) == findings
