"""What is counted is what was done: exact books for conversations, balanced ones for any."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings

from tests.middleware.conversation import Broken, Conversation
from tests.middleware.scripts import OBSERVED, SCRIPTS
from tests.middleware.transparency import Foreign, Inventive, Script, run
from tests.support import (
    ACCEPT,
    CLOSE,
    CONNECT,
    DISCONNECT,
    Peer,
    books,
    close_quietly,
    finish,
    pause,
    scope,
    send_bytes,
    send_text,
    table,
    totals,
    unbalanced,
    until_pause,
    without,
)
from ws_lifecycle_metrics import Config, LifecycleMiddleware
from ws_lifecycle_metrics.protocol import RULES
from ws_lifecycle_metrics.store.snapshot import Connection, Source
from ws_lifecycle_metrics.store.workers import current

if TYPE_CHECKING:
    from collections.abc import Callable

DURATIONS = ("handshake.duration", "connection.duration", "send.duration")

CONVERSATIONS = {
    "echo, closed by the client": (
        "< connect; > accept; < text hello; > text hello; < disconnect 1000",
        """
        handshakes other accepted 1
        closes other client 1000 1
        received_messages other text 1
        received_bytes other 5
        sent_messages other text 1
        sent_bytes other 5
        """,
    ),
    "text counts as UTF-8, bytes as bytes": (
        "< connect; > accept; < text h\u00e4\u20ac\U0001f600; > text \u00e4; < bytes 300;"
        "> bytes 7; < disconnect 1001",
        """
        handshakes other accepted 1
        closes other client 1001 1
        received_messages other text 1
        received_messages other binary 1
        received_bytes other 310
        sent_messages other text 1
        sent_messages other binary 1
        sent_bytes other 9
        """,
    ),
    "empty messages are messages": (
        "< connect; > accept; < bytes 0; > bytes 0; < disconnect 1000",
        """
        handshakes other accepted 1
        closes other client 1000 1
        received_messages other binary 1
        sent_messages other binary 1
        """,
    ),
    "closed by the application": (
        "< connect; > accept; > close 4400",
        "handshakes other accepted 1 \n closes other app 4400 1",
    ),
    "closed by the application, which reads the disconnect": (
        "< connect; > accept; > close 4000; < disconnect 1006",
        "handshakes other accepted 1 \n closes other app 4xxx 1",
    ),
    "a close without a code is 1000": (
        "< connect; > accept; > close",
        "handshakes other accepted 1 \n closes other app 1000 1",
    ),
    "a disconnect without a code is 1005": (
        "< connect; > accept; < disconnect",
        """
        handshakes other accepted 1
        closes other client 1005 1
        protocol_violations other server server.disconnect-code-missing 1
        """,
    ),
    "the server restarts": (
        "< connect; > accept; < disconnect 1012",
        "handshakes other accepted 1 \n closes other server 1012 1",
    ),
    "returned with the connection open": (
        "< connect; > accept",
        """
        handshakes other accepted 1
        closes other server other 1
        protocol_violations other app app.return-without-close 1
        """,
    ),
    "rejected": ("< connect; > close 4403", "handshakes other rejected 1"),
    "rejected, and it reads the disconnect": (
        "< connect; > close; < disconnect 1006",
        "handshakes other rejected 1",
    ),
    "denied": ("< connect; > deny; > body more; > body", "handshakes other denied 1"),
    "a denial that is never finished": (
        "< connect; > deny",
        """
        handshakes other denied 1
        protocol_violations other app app.denial-incomplete 1
        """,
    ),
    "returned without an answer": (
        "< connect",
        """
        handshakes other error 1
        protocol_violations other app app.return-before-handshake 1
        """,
    ),
    "raised without an answer": (
        "< connect; raise",
        """
        handshakes other error 1
        app_errors other 1
        protocol_violations other app app.exception 1
        """,
    ),
    "raised after the accept": (
        "< connect; > accept; raise",
        """
        handshakes other accepted 1
        closes other server other 1
        app_errors other 1
        protocol_violations other app app.exception 1
        """,
    ),
    "raised after the client left": (
        "< connect; > accept; < disconnect 1001; raise",
        """
        handshakes other accepted 1
        closes other client 1001 1
        app_errors other 1
        protocol_violations other app app.exception 1
        """,
    ),
    "the client leaves before the answer": (
        "< connect; < disconnect 1006",
        "handshakes other aborted 1",
    ),
    "cancelled before the answer": ("< connect; cancel", "handshakes other aborted 1"),
    "cancelled after the accept": (
        "< connect; > accept; cancel",
        "handshakes other accepted 1 \n closes other server other 1",
    ),
    "cancelled after the disconnect": (
        "< connect; > accept; < disconnect 1001; cancel",
        """
        handshakes other accepted 1
        closes other client 1001 1
        protocol_violations other app app.receive-after-disconnect 1
        """,
    ),
    "the accept fails": (
        "< connect; >! accept",
        """
        handshakes other aborted 1
        protocol_violations other server server.accept-failed 1
        """,
    ),
    "the accept finds the client gone": ("< connect; >? accept", "handshakes other aborted 1"),
    "a send finds the client gone": (
        "< connect; > accept; >? text lost",
        "handshakes other accepted 1 \n closes other client 1006 1",
    ),
    "a send fails for no reason": (
        "< connect; > accept; >! text lost; > text kept; < disconnect 1000",
        """
        handshakes other accepted 1
        closes other client 1000 1
        sent_messages other text 1
        sent_bytes other 4
        protocol_violations other server server.send-failed 1
        """,
    ),
    "the close fails": (
        "< connect; > accept; >! close 1000",
        """
        handshakes other accepted 1
        closes other app 1000 1
        protocol_violations other server server.close-failed 1
        """,
    ),
    "both sides break rules": (
        "< connect; < connect; > accept; > accept; > empty; > unknown; < text hi; > close 1000;"
        "> text late; > close 1000; < disconnect 1000; < disconnect 1000",
        """
        handshakes other accepted 1
        closes other app 1000 1
        received_messages other text 1
        received_bytes other 2
        sent_messages other text 1
        sent_bytes other 4
        protocol_violations other server server.duplicate-connect 1
        protocol_violations other server server.duplicate-disconnect 1
        protocol_violations other app app.send-no-payload 1
        protocol_violations other app app.unknown-event 1
        protocol_violations other app app.send-after-close 1
        protocol_violations other app app.close-twice 1
        protocol_violations other app app.receive-after-disconnect 1
        """,
    ),
    "a message before the accept": (
        "< connect; >! text early; > accept; < disconnect 1000",
        """
        handshakes other accepted 1
        closes other client 1000 1
        protocol_violations other app app.send-before-accept 1
        """,
    ),
    "nothing but the end": (
        "raise",
        """
        handshakes other error 1
        app_errors other 1
        protocol_violations other app app.exception 1
        """,
    ),
}


@pytest.fixture
def wrap(config: Config) -> Callable[[Any], Any]:
    return partial(LifecycleMiddleware, config=config)


@pytest.mark.parametrize(("text", "expected"), CONVERSATIONS.values(), ids=CONVERSATIONS)
def test_books_of_a_conversation(
    config: Config, wrap: Callable[[Any], Any], text: str, expected: str
) -> None:
    Conversation(wrap, text).play()
    assert without(books(config), *DURATIONS) == table(expected)
    assert unbalanced(books(config), 1) == []


def test_all_conversations_share_their_books(config: Config, wrap: Callable[[Any], Any]) -> None:
    expected: dict[tuple[str, ...], float] = {}
    for text, counted in CONVERSATIONS.values():
        Conversation(wrap, text).play()
        for key, value in table(counted).items():
            expected[key] = expected.get(key, 0) + value
    assert without(books(config), *DURATIONS) == expected
    assert unbalanced(books(config), len(CONVERSATIONS)) == []


def test_accept_with_the_same_object_twice(config: Config, wrap: Callable[[Any], Any]) -> None:
    """An accept kept as a constant, sent again, and refused: the first one holds."""
    peer = Peer([CONNECT], refuse={1: RuntimeError("twice")})

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(ACCEPT)
        with pytest.raises(RuntimeError):
            await send(ACCEPT)

    peer.serve(wrap(app))
    assert unbalanced(books(config), 1) == []
    assert totals(books(config), "closes") == 1


@pytest.mark.parametrize(
    "overtaking", [{"type": "websocket.ping"}, CLOSE], ids=["unknown", "close"]
)
def test_accept_that_fails_after_another_send_returned(
    config: Config, wrap: Callable[[Any], Any], overtaking: Any
) -> None:
    tasks: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        tasks.append(send(overtaking))
        await send(ACCEPT)

    async def slow(message: Any) -> None:
        if message is ACCEPT:
            await pause()
            raise ConnectionResetError

    running = wrap(app)(scope(), Peer([CONNECT]).receive, slow)
    until_pause(running)
    finish(tasks[0])
    with pytest.raises(ConnectionResetError):
        running.send(None)
    assert unbalanced(books(config), 1) == []


@pytest.mark.parametrize(
    ("message", "opcode", "size"),
    [
        (send_text(type("Markup", (str,), {})("<b>")), "text", 3),
        (send_bytes(bytearray(4)), "binary", 4),
        (send_bytes(memoryview(b"12345")), "binary", 5),
        (send_bytes(memoryview(bytes(8)).cast("Q")), "binary", 8),
        ({"type": "websocket.send", "text": None, "bytes": b"12"}, "binary", 2),
        ({"type": "websocket.send", "text": "12", "bytes": None}, "text", 2),
        ({"type": "websocket.send", "text": "12", "compress": True}, "text", 2),
    ],
    ids=lambda value: str(value)[:60],
)
def test_message_of_another_shape(
    config: Config, wrap: Callable[[Any], Any], message: Any, opcode: str, size: int
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(ACCEPT)
        await send(message)

    Peer([CONNECT]).serve(wrap(app))
    found = books(config)
    assert found.get(("sent_messages", "other", opcode)) == 1
    assert found.get(("sent_bytes", "other")) == size
    assert unbalanced(found, 1) == []


def test_a_view_that_the_server_released(config: Config, wrap: Callable[[Any], Any]) -> None:
    view = memoryview(b"data")

    async def release(message: Any) -> None:
        view.release()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(send_bytes(view))

    peer = Peer([CONNECT])
    finish(wrap(app)(scope(), peer.receive, release))
    assert unbalanced(books(config), 1) == []


def test_a_mapping_that_is_no_dict_is_flagged(config: Config, wrap: Callable[[Any], Any]) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(Foreign(**ACCEPT))
        await send(Foreign(**send_text("x")))
        await send(Foreign(**send_bytes(b"x")))
        await receive()

    Peer([CONNECT, Foreign(type="websocket.receive", text="x")]).serve(wrap(app))
    found = books(config)
    assert found.get(("protocol_violations", "other", "app", "app.malformed-event")) == 3
    assert found.get(("protocol_violations", "other", "server", "server.malformed-event")) == 1
    assert unbalanced(found, 1) == []


# The connections that are open.


def only(config: Config) -> Connection:
    (connection,) = Source(config).take().connections()
    return connection


def test_connection_in_detail(config: Config, wrap: Callable[[Any], Any]) -> None:
    talk = Conversation(wrap, "< connect; > accept chat; < text abc; > bytes 10; > unknown; cancel")
    talk.begin()
    seen = only(config)
    assert (seen.route, seen.subprotocol, seen.state) == ("other", "chat", "open")
    assert (seen.received_messages, seen.received_bytes) == (1, 3)
    assert (seen.sent_messages, seen.sent_bytes) == (1, 10)
    assert (seen.waits_for, seen.violations) == ("receive", 1)
    assert seen.age >= seen.in_state >= 0
    assert seen.age >= seen.silent >= 0
    talk.play()
    assert Source(config).take().connections() == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cancel", "active_connections other - connecting 1"),
        ("< connect; > accept; cancel", "active_connections other - open 1"),
        ("< connect; > accept chat; cancel", "active_connections other chat open 1"),
        ("< connect; > accept chat; > close; cancel", "active_connections other chat closing 1"),
        ("< connect; > accept; < disconnect 1000; cancel", "active_connections other - closing 1"),
        ("< connect; > close; cancel", "active_connections other - closing 1"),
        ("< connect; > accept; >? text lost; cancel", "active_connections other - closing 1"),
    ],
    ids=["new", "accepted", "subprotocol", "closed", "disconnected", "rejected", "lost"],
)
def test_active_connection(
    config: Config, wrap: Callable[[Any], Any], text: str, expected: str
) -> None:
    talk = Conversation(wrap, text)
    talk.begin()
    found = {k: v for k, v in books(config).items() if k[0] == "active_connections"}
    assert found == table(expected)
    talk.play()
    assert totals(books(config), "active_connections") == 0


@pytest.mark.parametrize("waits_for", ["receive", "send", "application"])
def test_what_a_connection_waits_for(
    config: Config, wrap: Callable[[Any], Any], waits_for: str
) -> None:
    async def never(*_: Any) -> None:
        await pause()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        waits = {"receive": receive, "send": partial(send, send_text("x")), "application": never}
        await waits[waits_for]()

    peer = Peer()
    running = wrap(app)(scope(), peer.receive, never)
    running.send(None)
    assert only(config).waits_for == waits_for
    running.close()
    assert Source(config).take().connections() == []


def test_a_used_record_starts_at_zero(config: Config, wrap: Callable[[Any], Any]) -> None:
    Conversation(wrap, "< connect; > accept chat; < text abc; > text abc; > unknown; cancel").play()
    talk = Conversation(wrap, "< connect; > accept; < text x; cancel")
    talk.begin()
    seen = only(config)
    assert (seen.received_messages, seen.received_bytes) == (1, 1)
    assert (seen.sent_messages, seen.sent_bytes, seen.violations) == (0, 0, 0)
    assert (seen.subprotocol, seen.waits_for) == ("", "receive")
    talk.play()
    assert books(config)["received_messages", "other", "text"] == 2


def test_ids_are_not_used_again(config: Config, wrap: Callable[[Any], Any]) -> None:
    talks = [Conversation(wrap, "< connect; > accept; cancel") for _ in range(3)]
    for talk in talks:
        talk.begin()
    first = {c.id for c in Source(config).take().connections()}
    talks[1].play()
    again = Conversation(wrap, "< connect; > accept; cancel")
    again.begin()
    assert len({c.id for c in Source(config).take().connections()} - first) == 1
    assert len(first) == 3
    for talk in (talks[0], talks[2], again):
        talk.play()


def test_more_open_connections_than_a_block_of_records(
    config: Config, wrap: Callable[[Any], Any]
) -> None:
    talks = [Conversation(wrap, "< connect; > accept; < text abc; cancel") for _ in range(300)]
    for talk in talks:
        talk.begin()
    assert totals(books(config), "active_connections") == 300
    assert len(Source(config).take().connections()) == 300
    for talk in talks:
        talk.play()
    assert unbalanced(books(config), 300) == []
    assert books(config)["received_bytes", "other"] == 900


@pytest.mark.parametrize("cap", [0, 1, 5, 64])
def test_beyond_the_cap_of_connections_they_are_still_counted(tmp_path: Any, cap: int) -> None:
    config = Config(service="cap", directory=str(tmp_path), max_connections=cap)
    wrap = partial(LifecycleMiddleware, config=config)
    talks = [Conversation(wrap, "< connect; > accept; < text abc; cancel") for _ in range(70)]
    for talk in talks:
        talk.begin()
    assert len(Source(config).take().connections()) <= cap
    for talk in talks:
        talk.play()
    assert unbalanced(books(config), 70) == []
    assert books(config)["received_messages", "other", "text"] == 70


def test_beyond_the_cap_a_second_route_is_still_counted(tmp_path: Any) -> None:
    config = Config(
        service="cap", directory=str(tmp_path), max_connections=3, route=lambda scope: scope["path"]
    )
    wrap = partial(LifecycleMiddleware, config=config)
    talks = [
        Conversation(wrap, "< connect; > accept; < text abc; cancel", path=path)
        for path in ("/a", "/a", "/a", "/a", "/b", "/b")
    ]
    for talk in talks:
        talk.begin()
    for talk in talks:
        talk.play()
    found = books(config)
    assert found["received_messages", "/a", "text"] == 4
    assert found["received_messages", "/b", "text"] == 2
    assert unbalanced(found, 6) == []


def test_draining_makes_the_server_the_one_who_closed(
    config: Config, wrap: Callable[[Any], Any]
) -> None:
    talk = Conversation(wrap, "< connect; > accept; < disconnect 1001; cancel")
    current(config).drain()
    talk.play()
    assert books(config)["closes", "other", "server", "1001"] == 1


# Whatever happens.


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Config:
    return Config(service="shared", directory=str(tmp_path_factory.mktemp("segments")))


def passed(script: Script, is_message: Callable[[str, Any], bool]) -> tuple[int, int]:
    """Count, in a bare run, the messages received and sent while the application ran."""
    seen = run(script, lambda app: app, script.make_scope())[0].seen
    ends = [n for n, (_, what, *_) in enumerate(seen) if what in ("returned", "left raised")]
    received = sent = 0
    waiting: dict[str, Any] = {}
    for who, what, *rest in seen[: ends[0]] if ends else seen:
        if what.startswith("send ") and what.endswith("called"):
            waiting[who] = rest[0]
        received += what == "receive returned" and is_message("websocket.receive", rest[0])
        sent += what == "send returned" and is_message("websocket.send", waiting[who])
    return received, sent


def is_message(kind: str, message: Any) -> bool:
    """Tell if it is a dict with exactly one payload, of a type that may be sent."""
    if type(message) is not dict or type(message.get("type")) is not str:
        return False
    text, data = message.get("text"), message.get("bytes")
    text_only = issubclass(type(text), str) and data is None
    bytes_only = text is None and type(data) in (bytes, bytearray, memoryview)
    return message["type"] == kind and (text_only or bytes_only)


def may_be_message(kind: str, message: Any) -> bool:
    """Tell if it is a message, or what some servers take for one."""
    return is_message(kind, message) or type(message) in (Foreign, Inventive)


def check_books(config: Config, script: Script) -> None:
    before = books(config)
    run(script, partial(LifecycleMiddleware, config=config), script.make_scope())
    after = books(config)
    grown = {key: value - before.get(key, 0) for key, value in after.items()}
    conversations = 1 if script.make_scope in OBSERVED else 0
    assert unbalanced(grown, conversations) == []
    assert min(grown.values(), default=0) >= 0
    least, most = passed(script, is_message), passed(script, may_be_message)
    received, sent = (totals(grown, f"{way}_messages") for way in ("received", "sent"))
    assert least[0] * conversations <= received <= most[0] * conversations
    assert least[1] * conversations <= sent <= most[1] * conversations
    parties = {key[2:] for key in grown if key[0] == "protocol_violations"}
    assert all(RULES[rule].party == party for party, rule in parties)


@settings(max_examples=120, deadline=None)
@given(SCRIPTS)
def test_books_balance(shared: Config, script: Script) -> None:
    check_books(shared, script)


@pytest.mark.slow
@settings(max_examples=5_000, deadline=None)
@given(SCRIPTS)
def test_books_balance_at_length(shared: Config, script: Script) -> None:
    check_books(shared, script)


def test_tasks_left_behind_count_nothing_more(config: Config, wrap: Callable[[Any], Any]) -> None:
    left: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(ACCEPT)
        left.append((receive, send))

    peer = Peer([CONNECT, {"type": "websocket.receive", "text": "late"}])
    peer.serve(wrap(app))
    before = books(config)
    receive, send = left[0]
    assert finish(receive())["text"] == "late"
    for message in (send_text("late"), send_bytes(b"late"), {"type": "websocket.close"}, None):
        finish(send(message))
    waiting = receive()
    waiting.send(None)
    close_quietly([waiting])
    assert len(peer.sent) == 5
    assert without(books(config), "protocol_violations") == without(before, "protocol_violations")
    assert unbalanced(books(config), 1) == []


@pytest.mark.parametrize("fails", [False, True], ids=["it returns", "it fails"])
@pytest.mark.parametrize("early", [{"type": "ping"}, send_text("early")], ids=["ping", "text"])
def test_send_in_flight_while_the_route_is_found(
    config: Config, wrap: Callable[[Any], Any], early: Any, fails: bool
) -> None:
    sending: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        sending.append(send(early))
        until_pause(sending[0])
        await send(ACCEPT)
        with suppress(ConnectionResetError):
            finish(sending[0])
        await send(send_text("in time"))
        await receive()

    async def slow(message: Any) -> None:
        if message is early:
            await pause()
            if fails:
                raise ConnectionResetError

    peer = Peer([CONNECT])
    running = wrap(app)(scope(path_template="/chat/{room}"), peer.receive, slow)
    until_pause(running)
    assert only(config).waits_for == "receive"
    assert only(config).route == "/chat/{room}"
    peer.events.append(DISCONNECT)
    finish(running)
    assert unbalanced(books(config), 1) == []


def test_slow_send_that_outlasts_the_application(
    config: Config, wrap: Callable[[Any], Any]
) -> None:
    sending: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(ACCEPT)
        sending.append(send(send_text("slow")))
        until_pause(sending[0])

    async def slow(message: Any) -> None:
        if message is not ACCEPT:
            await pause()
            time.sleep(0.002)

    finish(wrap(app)(scope(), Peer([CONNECT]).receive, slow))
    finish(sending[0])
    assert unbalanced(books(config), 1) == []


def test_a_cancelled_receive_does_not_wait_any_more(
    config: Config, wrap: Callable[[Any], Any]
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(ACCEPT)
        with suppress(asyncio.CancelledError):
            await receive()
        await pause()
        await receive()

    peer = Peer([CONNECT])
    running = wrap(app)(scope(), peer.receive, peer.send)
    until_pause(running)
    running.throw(asyncio.CancelledError())
    assert only(config).waits_for == "application"
    until_pause(running)
    assert only(config).waits_for == "receive"
    peer.events.append(DISCONNECT)
    finish(running)
    assert totals(books(config), "protocol_violations") == 0
    assert unbalanced(books(config), 1) == []


def test_error_of_the_application_leaves_it(wrap: Callable[[Any], Any]) -> None:
    assert isinstance(Conversation(wrap, "< connect; raise").play(), Broken)
