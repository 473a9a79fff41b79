"""What a client can and cannot do: names, sizes, deadlines, numbers."""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.exporter.traffic import asynchronous, dialled
from ws_lifecycle_metrics.config import ExporterConfig
from ws_lifecycle_metrics.exporter import client, server
from ws_lifecycle_metrics.exporter.access import Access
from ws_lifecycle_metrics.exporter.client import Answer, Client, Request
from ws_lifecycle_metrics.exporter.live import Live
from ws_lifecycle_metrics.exporter.server import Exporter

if TYPE_CHECKING:
    from tests.exporter.conftest import Serving

GET = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"


async def ended(exporter: Exporter) -> None:
    """Wait until no connection is served; none may have ended by a fault."""
    if exporter._served:
        done, pending = await asyncio.wait(exporter._served, timeout=10)
        assert not pending
        assert [task.exception() for task in done] == [None] * len(done)


async def status_of(reader: asyncio.StreamReader) -> int:
    line = await reader.readline()
    return int(line.split()[1])


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("localhost:10464", 200),
        ("LOCALHOST.:1", 200),
        ("127.0.0.1", 200),
        ("127.0.0.1:80", 200),
        ("[::1]:80", 200),
        ("sidecar.test", 200),
        ("Sidecar.Test:9090", 200),
        ("evil.test", 421),
        ("localhost.evil.test", 421),
        ("127.0.0.1.evil.test", 421),
        ("127.0.0.2", 421),
        ("evil.test#localhost", 421),
        ("", 421),
        (":80", 421),
        ("[", 421),
        ("[::1].evil.test", 421),
        ("[::1]:80:80", 421),
    ],
)
@asynchronous
async def test_only_known_hosts_are_served(serving: Serving, host: str, status: int) -> None:
    async with serving(allowed_hosts=("sidecar.test:9090",)) as (_, http):
        for path in ("/metrics", "/healthz", "/nope"):
            answer = await http.get(path, headers={"Host": host})
            assert answer.status_code == (404 if status == 200 and path == "/nope" else status)
            assert "evil" not in answer.text


@pytest.mark.parametrize(
    ("target", "host", "status"),
    [
        ("http://127.0.0.1:10464/healthz", "localhost", 200),
        ("HTTP://localhost/healthz", "evil.test", 200),  # the target stands for the Host
        ("http://sidecar.test:9090/connections?limit=0", "localhost", 200),
        ("https://localhost", "localhost", 200),
        ("http://localhost?limit=0", "localhost", 200),
        ("http://localhost/nope", "localhost", 404),
        ("http://evil.test/healthz", "localhost", 421),
        ("http://localhost:1@evil.test/healthz", "localhost", 404),
        ("http:///healthz", "localhost", 421),
        ("ftp://localhost/healthz", "localhost", 404),
    ],
)
@asynchronous
async def test_a_target_may_be_absolute(
    serving: Serving, target: str, host: str, status: int
) -> None:
    async with (
        serving(allowed_hosts=("sidecar.test:9090",)) as (_, http),
        dialled(http) as (reader, writer),
    ):
        writer.write(f"GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        assert await status_of(reader) == status


@asynchronous
async def test_the_address_that_a_client_reached_is_a_known_host(serving: Serving) -> None:
    async with serving(host="0.0.0.0") as (_, http):
        port = http.base_url.port
        reached = await http.get(f"http://127.0.0.2:{port}/healthz")
        other = await http.get(
            f"http://127.0.0.2:{port}/healthz", headers={"Host": f"127.0.0.3:{port}"}
        )
    assert reached.status_code == 200
    assert other.status_code == 421


@asynchronous
async def test_a_request_without_host_is_refused(serving: Serving) -> None:
    async with serving() as (_, http), dialled(http) as (reader, writer):
        writer.write(b"GET /metrics HTTP/1.0\r\n\r\n")
        assert await status_of(reader) == 421


@pytest.mark.parametrize("size", [7900, 8400, 100_000, 3_000_000])
@asynchronous
async def test_a_header_has_at_most_8_kib(serving: Serving, size: int) -> None:
    async with serving() as (_, http), dialled(http) as (reader, writer):
        writer.write(GET + b"X-Filler: " + b"x" * size + b"\r\n\r\n")
        assert await status_of(reader) == (200 if size < 8000 else 431)


HEAD = b"HEAD /healthz HTTP/1.1\r\nHost: localhost\r\n"


@pytest.mark.parametrize(
    ("sent", "statuses", "body"),
    [
        (HEAD + b"\r\n" + b"\x00\r\n\r\n", [200, 400], b"Bad Request\n"),
        (HEAD + b"\r\n" + GET + b"Connection: close\r\n\r\n", [200, 200], b"ok\n"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\nno length\r\n", [400], b""),
    ],
    ids=["then no request", "then another", "with a broken body"],
)
@asynchronous
async def test_what_comes_with_a_request_for_the_header_is_answered_as_it_should(
    serving: Serving,
    monkeypatch: pytest.MonkeyPatch,
    sent: bytes,
    statuses: list[int],
    body: bytes,
) -> None:
    faults: list[Exception] = []
    monkeypatch.setattr(client, "log_fault", faults.append)
    async with serving() as (exporter, http), dialled(http) as (reader, writer):
        writer.write(sent)
        writer.write_eof()
        answer = await reader.read()
        await ended(exporter)
    heads = answer.split(b"HTTP/1.1 ")[1:]
    assert [int(head[:3]) for head in heads] == statuses
    assert heads[-1].partition(b"\r\n\r\n")[2] == body
    assert not faults


@pytest.mark.parametrize(
    "junk",
    [b"\x16\x03\x01\x02\x00\x01\x00", b"GET /\r\n\r\n", GET + b"Host: twice\r\n\r\n", b"\r\n" * 9],
    ids=["a TLS handshake", "no version", "two hosts", "blank lines"],
)
@asynchronous
async def test_what_is_no_request_gets_400_or_nothing(serving: Serving, junk: bytes) -> None:
    async with serving() as (exporter, http):
        async with dialled(http) as (reader, writer):
            writer.write(junk)
            writer.write_eof()
            line = await reader.readline()
            assert line == b"" or line.split()[1] == b"400"
            await ended(exporter)
        assert (await http.get("/healthz")).status_code == 200


@asynchronous
async def test_a_body_is_not_read_but_the_answer_arrives(serving: Serving) -> None:
    async with serving() as (exporter, http), dialled(http) as (reader, writer):
        writer.write(GET + b"Content-Length: 10000000\r\n\r\n" + b"x" * 200_000)
        answer = await reader.readuntil(b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert b"connection: close" in answer.lower()
        writer.write_eof()
        await ended(exporter)


@asynchronous
async def test_pipelined_requests_are_answered_in_order(serving: Serving) -> None:
    async with serving() as (_, http), dialled(http) as (reader, writer):
        writer.write(
            GET + b"\r\n" + GET.replace(b"healthz", b"nope") + b"Connection: close\r\n\r\n"
        )
        writer.write_eof()
        answer = await reader.read(-1)
    assert answer.count(b"HTTP/1.1 ") == 2
    assert answer.index(b"HTTP/1.1 200") < answer.index(b"HTTP/1.1 404")


async def dribble(http: httpx.AsyncClient) -> None:
    """Send a header byte by byte, until the connection is gone."""
    async with dialled(http) as (reader, writer):
        gone = asyncio.ensure_future(reader.read())
        for byte in GET + b"X-Filler: " + b"x" * 4000:
            writer.write(bytes([byte]))
            done, _ = await asyncio.wait([gone], timeout=0.02)
            if done:
                break
        with suppress(OSError):
            await gone


@asynchronous
async def test_slow_senders_are_dropped_and_delay_nobody(serving: Serving) -> None:
    async with serving(header_timeout=2.0) as (exporter, http):
        dribbling = [asyncio.create_task(dribble(http)) for _ in range(100)]
        while len(exporter._served) < 100:  # noqa: ASYNC110  # nothing tells of it
            await asyncio.sleep(0.01)
        theirs = set(exporter._served)
        answer = await http.get("/metrics", headers={"Connection": "close"})
        assert answer.status_code == 200
        assert not any(task.done() for task in theirs)  # they began earlier
        await asyncio.gather(*dribbling)
        await ended(exporter)


@pytest.mark.parametrize("sent", [b"", GET], ids=["nothing", "half a request"])
@asynchronous
async def test_a_silent_client_is_dropped(serving: Serving, sent: bytes) -> None:
    async with serving(header_timeout=0.1) as (_, http), dialled(http) as (reader, writer):
        writer.write(sent)
        with suppress(ConnectionResetError):
            assert await reader.read() == b""


@pytest.mark.parametrize("sent", [b"", GET, GET + b"\r\n"], ids=["at once", "within", "after"])
@pytest.mark.parametrize("how", ["says so", "resets", "is silent"])
@asynchronous
async def test_a_client_that_leaves_is_no_fault(
    serving: Serving, monkeypatch: pytest.MonkeyPatch, sent: bytes, how: str
) -> None:
    faults: list[Exception] = []
    monkeypatch.setattr(client, "log_fault", faults.append)
    asks = sent.endswith(b"\r\n\r\n")
    passes = {"idle_timeout" if asks else "header_timeout": 0.05} if how == "is silent" else {}
    async with serving(**passes) as (exporter, http):
        async with dialled(http) as (reader, writer):
            writer.write(sent)
            if asks:
                assert await status_of(reader) == 200
            if how == "resets":
                linger = struct.pack("ii", 1, 0)
                writer.get_extra_info("socket").setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, linger
                )
            elif how == "says so":
                writer.write_eof()
            else:
                await ended(exporter)
        await ended(exporter)
    assert faults == []


@asynchronous
async def test_a_fault_with_one_client_is_logged_and_ends_its_connection(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults: list[Exception] = []
    monkeypatch.setattr(client, "log_fault", faults.append)
    fault = RuntimeError("ours")

    async def raises(_: object, _request: object, _own: object) -> Answer:
        raise fault

    monkeypatch.setattr(Exporter, "_answer", raises)
    async with serving() as (exporter, http), dialled(http) as (reader, writer):
        writer.write(GET + b"\r\n")
        assert await reader.read() == b""
        await ended(exporter)
    assert faults == [fault]


@asynchronous
async def test_a_connection_is_kept_until_it_is_idle_for_too_long(serving: Serving) -> None:
    async with serving(idle_timeout=0.2, header_timeout=60.0) as (exporter, http):
        first = await http.get("/healthz")
        assert first.headers["Date"].endswith(" GMT")
        second = await http.get("/healthz")
        stream = first.extensions["network_stream"], second.extensions["network_stream"]
        assert stream[0].get_extra_info("client_addr") == stream[1].get_extra_info("client_addr")
        assert len(exporter._served) == 1
        await ended(exporter)


@asynchronous
async def test_a_slow_reader_is_dropped_and_delays_nobody(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = b"x" * 2**24

    async def huge(_live: Live, _accept: str) -> tuple[bytes, str]:
        return body, "text/plain"

    monkeypatch.setattr(Live, "metrics", huge)
    async with serving(write_timeout=2.0) as (exporter, http):
        async with dialled(http, buffer=4096) as (reader, writer):
            writer.write(GET.replace(b"healthz", b"metrics") + b"\r\n")
            assert await status_of(reader) == 200  # it is being written, and nobody reads
            slow = set(exporter._served)
            assert (await http.get("/healthz")).status_code == 200
            assert not any(task.done() for task in slow)
            done, _ = await asyncio.wait(slow, timeout=15)
            assert done == slow
        assert (await http.get("/metrics")).content == body


@asynchronous
async def test_a_slow_reader_gets_all_of_the_last_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "LINGER", 0.0)
    body = b"x" * 50_000  # more than the kernel takes here, less than asyncio would keep

    async def answer(_: Request) -> Answer:
        return Answer(200, body)

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await Client(ExporterConfig(), Access(), reader, writer).serve(answer)

    listener = socket.create_server(("127.0.0.1", 0))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    async with (
        await asyncio.start_server(accept, sock=listener),
        httpx.AsyncClient(base_url=url, trust_env=False) as http,
        dialled(http, buffer=4096) as (reader, writer),
    ):
        writer.write(GET + b"Connection: close\r\n\r\n")
        _, _, received = (await reader.read()).partition(b"\r\n\r\n")
    assert len(received) == len(body)


@asynchronous
async def test_who_is_refused_and_goes_on_is_dropped(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "LINGER", 0.1)
    async with serving() as (exporter, http), dialled(http) as (reader, writer):
        writer.write(b"GET /\r\n\r\n")
        assert await status_of(reader) == 400
        await ended(exporter)  # although the client stays


@asynchronous
async def test_above_the_bound_the_answer_is_503_at_once(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(max_clients=2) as (exporter, http):
        async with dialled(http) as (first, to_first), dialled(http) as (second, to_second):
            for reader, writer in ((first, to_first), (second, to_second)):
                writer.write(GET + b"\r\n")
                assert await status_of(reader) == 200
            monkeypatch.setattr(client, "LINGER", 60.0)
            async with dialled(http) as (third, _):
                refusal = await third.read()  # to the end, which is said: it was not reset
            assert refusal.startswith(b"HTTP/1.1 503 ")
            assert refusal.endswith(b"too many connections\n")
            monkeypatch.setattr(server, "MOST_REFUSED", 0)
            async with dialled(http) as (fourth, _):
                with suppress(ConnectionResetError):
                    assert await fourth.read() == b""
        await ended(exporter)
        assert (await http.get("/healthz")).status_code == 200


@asynchronous
async def test_closing_ends_idle_sending_and_reading_clients(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def huge(_live: Live, _accept: str) -> tuple[bytes, str]:
        return b"x" * 2**25, "text/plain"

    monkeypatch.setattr(Live, "metrics", huge)
    async with (
        serving() as (exporter, http),
        dialled(http) as (_, idle),
        dialled(http, buffer=4096) as (reader, slow),
    ):
        idle.write(b"GET")
        slow.write(GET.replace(b"healthz", b"metrics") + b"\r\n")
        assert await status_of(reader) == 200
        await asyncio.wait_for(exporter.aclose(), 5)
        assert not exporter._served


@asynchronous
async def test_an_offer_to_switch_protocols_is_passed_over(serving: Serving) -> None:
    offer = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n\r\n"
    async with serving() as (_, http), dialled(http) as (reader, writer):
        for request in (GET + offer, b"CONNECT localhost:1 HTTP/1.1\r\nHost: localhost\r\n\r\n"):
            writer.write(request)
            assert await status_of(reader) == (405 if b"CONNECT" in request else 200)
            await reader.readuntil(b"\r\n\r\n")
            await reader.readline()
        writer.write(GET + b"\r\n")
        assert await status_of(reader) == 200
