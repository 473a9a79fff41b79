"""Counts of messages reach the record with a beat, or at once where it matters or nothing beats."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.sdk.trace import TracerProvider

from tests.support import (
    ACCEPT,
    CONNECT,
    DISCONNECT,
    books,
    receive_bytes,
    receive_text,
    scope,
    send_text,
    totals,
)
from ws_lifecycle_metrics import Config, LifecycleMiddleware
from ws_lifecycle_metrics.store import layout as at
from ws_lifecycle_metrics.store.workers import existing
from ws_lifecycle_metrics.watchdog import heartbeat

if TYPE_CHECKING:
    from pathlib import Path

TIME_OUT = 10


class Talk:
    """An echo in this loop; the other end is a queue, and a send waits while `hold` is set."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.events: asyncio.Queue[Any] = asyncio.Queue()
        self.sent: asyncio.Queue[Any] = asyncio.Queue()
        self.free = asyncio.Event()
        self.free.set()
        self.takes = 0.0  # seconds of a send
        self.handling: list[int] = []

    async def app(self, _scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(ACCEPT)
        while (event := await receive())["type"] != "websocket.disconnect":
            self.handling.append(self.record()[at.RECEIVING])
            await send({**event, "type": "websocket.send"})

    async def send(self, event: Any) -> None:
        if self.takes:
            await asyncio.sleep(self.takes)
        self.sent.put_nowait(event)
        await self.free.wait()

    async def open(self) -> asyncio.Task[Any]:
        app = LifecycleMiddleware(self.app, config=self.config)
        task = asyncio.ensure_future(app(scope(), self.events.get, self.send))
        self.events.put_nowait(CONNECT)
        await self.sent.get()
        return task

    async def echo(self, text: str) -> None:
        self.events.put_nowait(receive_text(text))
        await self.sent.get()

    def record(self) -> memoryview:
        """The record as every other process sees it."""
        worker = existing(self.config)
        assert worker is not None
        [(_, records)] = worker.record_blocks
        return records[: at.RECORD_WORDS]

    async def echo_bytes(self, data: bytes, **more: None) -> None:
        self.events.put_nowait({**receive_bytes(data), **more})
        await self.sent.get()

    async def beat(self, of: int = 1) -> None:
        worker = existing(self.config)
        assert worker is not None
        until = worker.segment.header[at.BEATS] + of
        while worker.segment.header[at.BEATS] < until:  # noqa: ASYNC110  # a word in memory
            await asyncio.sleep(0.01)

    def publish(self) -> None:
        """What a beat does, at a moment of the test's choice."""
        worker = existing(self.config)
        assert worker is not None
        worker.publish(time.monotonic_ns())


@pytest.fixture
def one_beat(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop beats when it starts, and not again as long as a test takes."""
    monkeypatch.setattr(heartbeat, "INTERVAL", 60.0)


def run(config: Config, play: Any) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(TIME_OUT):
            talk = Talk(config)
            task = await talk.open()
            await play(talk)
            talk.free.set()
            talk.events.put_nowait(DISCONNECT)
            await task

    asyncio.run(bounded())


def test_what_a_busy_connection_has_counted_is_written_with_the_next_beat(config: Config) -> None:
    async def play(talk: Talk) -> None:
        await talk.beat()
        for _ in range(5):
            await talk.echo("four")
        await talk.beat()
        record = talk.record()
        assert (record[at.RECEIVED_TEXT], record[at.RECEIVED_BYTES]) == (5, 20)
        assert (record[at.SENT_TEXT], record[at.SENT_BYTES]) == (5, 20)
        assert record[at.SENT_NS] > 0
        assert (record[at.RECEIVING], record[at.SENDING]) == (1, 0)
        assert record[at.RECEIVED_AT] > record[at.OPENED_AT]

    run(config, play)


@pytest.mark.usefixtures("one_beat")
def test_who_reads_on_the_loop_misses_nothing(config: Config) -> None:
    async def play(talk: Talk) -> None:
        for _ in range(4):
            await talk.echo("x")
        assert talk.record()[at.RECEIVED_TEXT] == 1  # the others wait for the beat
        assert totals(books(config), "received_messages") == 4

    run(config, play)


@pytest.mark.usefixtures("one_beat")
def test_binary_messages_are_counted_as_text_is(config: Config) -> None:
    async def play(talk: Talk) -> None:
        await talk.echo_bytes(b"written at once")
        record = talk.record()
        assert (record[at.RECEIVED_BINARY], record[at.SENT_BINARY]) == (1, 1)
        took = record[at.SENT_NS]
        for _ in range(3):
            await talk.echo_bytes(b"four")
            await talk.echo_bytes(b"four", text=None)
            await talk.echo("\xe9")
        assert (record[at.RECEIVED_BINARY], record[at.SENT_BINARY]) == (1, 1)
        talk.publish()
        assert (record[at.RECEIVED_BINARY], record[at.SENT_BINARY]) == (7, 7)
        assert (record[at.RECEIVED_TEXT], record[at.SENT_TEXT]) == (3, 3)
        assert record[at.RECEIVED_BYTES] == record[at.SENT_BYTES] == 15 + 24 + 6
        assert (record[at.SENT_NS], record[at.VIOLATIONS]) == (10 * took, 0)

    run(config, play)


@pytest.mark.usefixtures("one_beat")
@pytest.mark.parametrize("payload", [{"bytes": bytearray(b"x")}, {"text": "x", "bytes": b"x"}, {}])
def test_what_is_no_plain_message_is_judged_at_once(config: Config, payload: Any) -> None:
    async def play(talk: Talk) -> None:
        await talk.echo("x")
        talk.events.put_nowait({"type": "websocket.receive", **payload})
        await talk.sent.get()
        assert talk.record()[at.VIOLATIONS]

    run(config, play)


def test_a_beat_between_two_messages_counts_none_of_them_twice(config: Config) -> None:
    async def play(talk: Talk) -> None:
        for _ in range(3):
            await talk.echo("x")
            await talk.beat(of=2)
        assert talk.record()[at.RECEIVED_TEXT] == talk.record()[at.SENT_TEXT] == 3

    run(config, play)


def test_the_first_message_after_a_beat_shows_at_once_who_has_it(config: Config) -> None:
    """A loop that hangs in the handler of a message never beats again."""

    async def play(talk: Talk) -> None:
        await talk.beat(of=2)
        assert talk.record()[at.RECEIVING] == 1
        await talk.echo("x")
        assert talk.handling == [0]

    run(config, play)


def test_a_send_that_does_not_return_is_seen_with_its_start(config: Config) -> None:
    async def play(talk: Talk) -> None:
        await talk.echo("x")
        talk.free.clear()
        await talk.echo("held")
        await talk.beat(of=2)
        record = talk.record()
        assert record[at.SENDING] == 1
        began = record[at.SENT_AT]
        await talk.beat(of=2)
        assert (record[at.SENDING], record[at.SENT_AT]) == (1, began)
        talk.free.set()
        await talk.beat(of=2)
        assert (record[at.SENDING], record[at.SLOW_TEXT]) == (0, 1)

    run(config, play)


@pytest.mark.usefixtures("one_beat")
def test_the_start_of_a_timed_send_is_the_same_after_a_beat(config: Config) -> None:
    async def play(talk: Talk) -> None:
        talk.free.clear()
        await talk.echo("held")
        record = talk.record()
        assert record[at.SENDING] == 1
        began = record[at.SENT_AT]
        assert began >= record[at.RECEIVED_AT] > 0
        talk.publish()
        assert (record[at.SENDING], record[at.SENT_AT]) == (1, began)

    run(config, play)


SLOW = 0.005


@pytest.mark.usefixtures("one_beat")
def test_sends_that_are_not_timed_count_as_long_as_the_latest_that_was(config: Config) -> None:
    async def play(talk: Talk) -> None:
        await talk.echo("timed")
        took = talk.record()[at.SENT_NS]
        assert took > 0
        for _ in range(4):
            await talk.echo("x")
        assert talk.record()[at.SENT_TEXT] == 1
        talk.publish()
        assert (talk.record()[at.SENT_TEXT], talk.record()[at.SENT_NS]) == (5, 5 * took)

    run(config, play)


@pytest.mark.usefixtures("one_beat")
def test_while_sends_are_slow_each_one_is_timed(config: Config) -> None:
    async def play(talk: Talk) -> None:
        talk.takes = SLOW
        for slow in (1, 2, 3):
            await talk.echo("slow")
            assert talk.record()[at.SLOW_TEXT] == slow
        talk.takes = 0
        talk.publish()
        await talk.echo("timed")
        talk.publish()  # a whole beat without a slow one
        await talk.echo("timed")
        talk.takes = SLOW
        await talk.echo("on the quick way")
        talk.publish()
        assert (talk.record()[at.SLOW_TEXT], talk.record()[at.SENT_TEXT]) == (3, 3)
        await talk.echo("slow")
        assert talk.record()[at.SLOW_TEXT] == 4

    run(config, play)


@pytest.mark.usefixtures("one_beat")
def test_a_send_on_the_quick_way_that_a_beat_meets_is_timed_from_there(config: Config) -> None:
    async def play(talk: Talk) -> None:
        await talk.echo("timed")
        talk.free.clear()
        await talk.echo("held")
        record = talk.record()
        assert (record[at.SENDING], record[at.SENT_TEXT]) == (0, 1)
        talk.publish()
        assert (record[at.SENDING], record[at.SENT_TEXT]) == (1, 1)
        await asyncio.sleep(SLOW)  # what the send takes
        talk.free.set()
        await talk.echo("x")
        assert (record[at.SENDING], record[at.SLOW_TEXT]) == (0, 1)
        assert record[at.SENT_NS] >= SLOW * 1e9

    run(config, play)


@pytest.mark.usefixtures("one_beat")
def test_where_spans_are_made_each_send_is_timed_from_its_start(tmp_path: Path) -> None:
    async def play(talk: Talk) -> None:
        for _ in range(3):
            await talk.echo("x")
        talk.free.clear()
        await talk.echo("held")
        await asyncio.sleep(SLOW)  # what the send takes
        talk.publish()
        record = talk.record()
        assert (record[at.SENDING], record[at.SENT_TEXT]) == (1, 3)
        talk.free.set()
        await talk.echo("x")
        assert record[at.SLOW_TEXT] == 1
        assert record[at.SENT_NS] >= SLOW * 1e9

    provider = TracerProvider(shutdown_on_exit=False)
    config = Config(directory=str(tmp_path), tracer_provider=provider, span_budget=0)
    run(config, play)


@pytest.mark.usefixtures("one_beat")
def test_calls_that_overlap_one_on_the_quick_way_are_counted(config: Config) -> None:
    async def play() -> None:
        async with asyncio.timeout(TIME_OUT):
            pushes: asyncio.Queue[Any] = asyncio.Queue()

            class Pushing(Talk):
                async def app(self, _scope: Any, receive: Any, send: Any) -> None:
                    await receive()
                    await send(ACCEPT)
                    receiving = asyncio.ensure_future(receive())
                    while text := await pushes.get():
                        await asyncio.gather(*(send(send_text(one)) for one in text))
                    await receiving

            talk = Pushing(config)
            task = await talk.open()
            for text in ("t", "q", "qq", "tqq"):
                pushes.put_nowait(text)
                for _ in text:
                    assert (await talk.sent.get())["text"] in "tq"
            talk.publish()
            record = talk.record()
            assert (record[at.SENDING], record[at.RECEIVING]) == (0, 1)
            assert record[at.SENT_TEXT] == record[at.SENT_BYTES] == 7
            pushes.put_nowait("")
            talk.events.put_nowait(DISCONNECT)
            await task
            assert record[at.VIOLATIONS] == 0

    asyncio.run(play())


def test_a_send_on_its_own_that_does_not_return_is_seen(config: Config) -> None:
    pushed = asyncio.Event()

    class Pushing(Talk):
        async def app(self, _scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await send(ACCEPT)
            await pushed.wait()
            await send(send_text("held"))
            await receive()

    async def bounded() -> None:
        async with asyncio.timeout(TIME_OUT):
            talk = Pushing(config)
            task = await talk.open()
            await talk.beat(of=2)
            talk.free.clear()
            pushed.set()
            await talk.sent.get()
            await talk.beat(of=2)
            assert talk.record()[at.SENDING] == 1
            talk.free.set()
            talk.events.put_nowait(DISCONNECT)
            await task

    asyncio.run(bounded())


@pytest.mark.parametrize("ended", ["returned", "cancelled"])
def test_nothing_is_left_out_at_the_end(config: Config, ended: str) -> None:
    async def play() -> None:
        async with asyncio.timeout(TIME_OUT):
            talk = Talk(config)
            task = await talk.open()
            await talk.beat()
            await talk.echo("four")
            if ended == "returned":
                talk.events.put_nowait(DISCONNECT)
                await task
            else:
                task.cancel()
                await asyncio.wait([task])
            record = talk.record()
            assert (record[at.STATE], record[at.RECEIVED_TEXT], record[at.SENT_TEXT]) == (0, 1, 1)
            worker = existing(config)
            assert worker is not None
            assert not worker.noted

    asyncio.run(play())


def test_where_no_loop_beats_each_message_is_written_at_once(config: Config) -> None:
    events = [CONNECT, receive_text("four"), receive_text("four")]
    seen: list[tuple[int, int]] = []

    async def receive() -> Any:
        return events.pop(0)

    async def send(_event: Any) -> None: ...

    async def app(_scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(ACCEPT)
        for _ in range(2):
            await send(send_text((await receive())["text"]))
            worker = existing(config)
            assert worker is not None
            [(_, records)] = worker.record_blocks
            seen.append((records[at.RECEIVED_TEXT], records[at.SENT_BYTES]))

    with pytest.raises(StopIteration):
        LifecycleMiddleware(app, config=config)(scope(), receive, send).send(None)
    assert seen == [(1, 4), (2, 8)]


@pytest.mark.usefixtures("one_beat")
def test_beat_after_beat_counts_what_came_since_the_one_before(config: Config) -> None:
    async def play(talk: Talk) -> None:
        for beats in range(1, 5):
            for _ in range(3):
                await talk.echo("four")
                await talk.echo_bytes(b"22")
            talk.publish()
            talk.publish()  # nothing has come since
            record = talk.record()
            assert [record[word] for word in at.RECEIVED] == [3 * beats, 3 * beats]
            assert sum(record[word] for word in at.SENT) == 6 * beats  # a slow one stands elsewhere
            assert record[at.RECEIVED_BYTES] == record[at.SENT_BYTES] == 18 * beats

    run(config, play)
    found = books(config)
    assert totals(found, "received_messages") == totals(found, "sent_messages") == 24
    assert totals(found, "received_bytes") == totals(found, "sent_bytes") == 72


@pytest.mark.usefixtures("one_beat")
def test_a_busy_sender_is_judged_again_once_the_disconnect_was_read(config: Config) -> None:
    class Late(Talk):
        async def app(self, scope: Any, receive: Any, send: Any) -> None:
            await super().app(scope, receive, send)
            await send(send_text("too late"))

    async def play() -> None:
        async with asyncio.timeout(TIME_OUT):
            talk = Late(config)
            task = await talk.open()
            for _ in range(3):
                await talk.echo("on the quick way")
            talk.events.put_nowait(DISCONNECT)
            await task

    asyncio.run(play())
    found = books(config)
    assert found["sent_messages", "other", "text"] == 4
    assert found["protocol_violations", "other", "app", "app.send-after-disconnect"] == 1
