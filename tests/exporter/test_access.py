"""TLS and passwords: who gets in, what they get, and what changes while it runs."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import ssl
import threading
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import bcrypt
import httpx
import pytest

from tests.exporter.certificates import Site
from tests.exporter.test_clients import ended
from tests.exporter.traffic import asynchronous, open_connections
from ws_lifecycle_metrics.config import ExporterConfig
from ws_lifecycle_metrics.exporter import client, server
from ws_lifecycle_metrics.exporter.access import MOST_GUESSES, RETRY, Access
from ws_lifecycle_metrics.exporter.client import Answer, Client, Request

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.exporter.conftest import Serving

PAGES = ("/", "/metrics", "/connections", "/workers", "/healthz", "/readyz", "/nope")
HASH = bcrypt.hashpw(b"open sesame", bcrypt.gensalt(4)).decode()
OTHER = bcrypt.hashpw(b"another", bcrypt.gensalt(4)).decode()


@pytest.fixture
def site(tmp_path: Path) -> Site:
    folder = tmp_path / "site"
    folder.mkdir()
    return Site(folder)


@asynccontextmanager
async def over_tls(
    http: httpx.AsyncClient, context: ssl.SSLContext, **options: Any
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the same server that speaks TLS."""
    base = str(http.base_url).replace("http://", "https://")
    async with httpx.AsyncClient(
        base_url=base, verify=context, trust_env=False, timeout=20, **options
    ) as client:
        yield client


@asynchronous
async def test_every_page_is_served_over_tls_and_none_without(
    serving: Serving, site: Site, tmp_path: Path
) -> None:
    async with (
        open_connections(tmp_path, "/chat"),
        serving(web_config_file=site.write()) as (exporter, http),
        over_tls(http, site.client()) as https,
    ):
        assert exporter.access.encrypts
        for page in PAGES:
            answer = await https.get(page)
            assert answer.status_code == (404 if page == "/nope" else 200)
            with pytest.raises(httpx.RemoteProtocolError):
                await http.get(page)
        assert "websocket_server_active_connections" in (await https.get("/metrics")).text
        assert (await https.get("/healthz", headers={"Host": "evil.test"})).status_code == 421
        stream = answer.extensions["network_stream"].get_extra_info("ssl_object")
        assert stream.version() == "TLSv1.3"
        assert stream.selected_alpn_protocol() == "http/1.1"


@asynchronous
async def test_a_client_that_trusts_others_does_not_get_in(serving: Serving, site: Site) -> None:
    async with serving(web_config_file=site.write()) as (exporter, http):
        async with over_tls(http, ssl.create_default_context()) as https:
            with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
                await https.get("/healthz")
        await ended(exporter)


@asynchronous
async def test_many_clients_that_speak_at_once(serving: Serving, site: Site) -> None:
    """The first bytes of none are taken for something else than TLS."""
    context = site.client()
    async with serving(web_config_file=site.write()) as (_, http):

        async def ask() -> int:
            async with over_tls(http, context) as https:
                return (await https.get("/healthz")).status_code

        for _ in range(5):
            answers = await asyncio.gather(*(ask() for _ in range(20)))
            assert answers == [200] * 20


def all_of(port: int, context: ssl.SSLContext) -> bytes:
    """Ask for the metrics and read slowly, to the end of the encrypted stream and no other."""
    with socket.socket() as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.settimeout(10)
        raw.connect(("127.0.0.1", port))
        with context.wrap_socket(
            raw, server_hostname="localhost", suppress_ragged_eofs=False
        ) as encrypted:
            encrypted.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            received = b""
            while piece := encrypted.recv(1000):
                received += piece
            return received


@asynchronous
async def test_a_slow_reader_gets_all_over_tls(site: Site) -> None:
    body = os.urandom(200_000)
    access = Access(site.write())

    async def answer(_: Request) -> Answer:
        return Answer(200, body)

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await Client(ExporterConfig(), access, reader, writer).serve(answer)

    listener = socket.create_server(("127.0.0.1", 0))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    port = listener.getsockname()[1]
    async with await asyncio.start_server(accept, sock=listener):
        received = await asyncio.to_thread(all_of, port, site.client())
    assert received.partition(b"\r\n\r\n")[2] == body


def ends_properly(port: int, context: ssl.SSLContext, request: bytes) -> bytes:
    """Return the answer; raises unless TLS says that it was whole."""
    with (
        socket.create_connection(("127.0.0.1", port), timeout=10) as raw,
        context.wrap_socket(
            raw, server_hostname="localhost", suppress_ragged_eofs=False
        ) as encrypted,
    ):
        encrypted.sendall(request)
        received = b""
        while piece := encrypted.recv(65536):
            received += piece
        return received


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 9000 + b"\r\n\r\n", 431),
        (b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n", 200),
        (b"GET /readyz HTTP/1.0\r\nHost: localhost\r\n\r\n", 200),
    ],
    ids=["no request", "too large", "with a body", "HTTP 1.0"],
)
@asynchronous
async def test_whoever_is_refused_gets_all_over_tls(
    serving: Serving,
    site: Site,
    monkeypatch: pytest.MonkeyPatch,
    request_: bytes,
    status: int,
) -> None:
    monkeypatch.setattr(client, "LINGER", 0.1)
    headers = {"Strict-Transport-Security": "max-age=60"}
    path = site.write(http_server_config={"headers": headers})
    async with serving(web_config_file=path) as (_, http):
        answer = await asyncio.to_thread(ends_properly, http.base_url.port, site.client(), request_)
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert b"Strict-Transport-Security: max-age=60" in answer


@asynchronous
async def test_above_the_bound_the_answer_is_503_over_tls(
    serving: Serving,
    site: Site,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(client, "LINGER", 0.1)
    async with (
        serving(web_config_file=site.write(), max_clients=1) as (exporter, http),
        over_tls(http, site.client()) as first,
        over_tls(http, site.client()) as second,
    ):
        assert (await first.get("/healthz")).status_code == 200
        assert (await second.get("/healthz")).status_code == 503
        assert len(exporter._served) == 1
    assert not caplog.records


@pytest.mark.parametrize("sent", [b"", b"\x16\x03\x01", b"GET / HTTP/1.1\r\n\r\n" * 5])
@asynchronous
async def test_who_begins_no_tls_is_dropped_and_counts_meanwhile(
    serving: Serving, site: Site, sent: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(web_config_file=site.write(), header_timeout=0.5) as (exporter, http):
        reader, writer = await asyncio.open_connection(http.base_url.host, http.base_url.port)
        writer.write(sent)
        with suppress(ConnectionResetError):
            await reader.read()
        await ended(exporter)
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
        async with over_tls(http, site.client()) as https:
            assert (await https.get("/healthz")).status_code == 200
    assert not caplog.records


@asynchronous
async def test_silent_handshakes_are_bounded_as_others_are(
    serving: Serving, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "MOST_REFUSED", 2)
    async with serving(web_config_file=site.write(), max_clients=3, header_timeout=1.0) as (
        exporter,
        http,
    ):
        opened = [
            await asyncio.open_connection(http.base_url.host, http.base_url.port) for _ in range(20)
        ]
        ends = [asyncio.ensure_future(reader.read()) for reader, _ in opened]
        await asyncio.wait(ends, timeout=10)
        assert all(end.done() for end in ends)
        await ended(exporter)
        for end, (_, writer) in zip(ends, opened, strict=True):
            with suppress(OSError):
                assert end.result() == b""
            writer.transport.abort()


@pytest.mark.parametrize(
    ("tls", "names", "admitted"),
    [
        ({"client_auth_type": "NoClientCert", "client_ca_file": None}, (), True),
        ({"client_auth_type": "VerifyClientCertIfGiven"}, (), True),
        ({"client_auth_type": "VerifyClientCertIfGiven"}, ("prometheus.test",), True),
        ({"client_auth_type": "RequireAndVerifyClientCert"}, (), False),
        ({"client_auth_type": "RequireAndVerifyClientCert"}, ("prometheus.test",), True),
        ({"client_allowed_sans": ["prometheus.test", "::1"]}, ("prometheus.test",), True),
        ({"client_allowed_sans": ["prometheus.test", "::1"]}, ("::1",), True),
        ({"client_allowed_sans": ["0:0:0:0:0:0:0:1"]}, ("::1",), True),
        ({"client_allowed_sans": ["prometheus.test", "::1"]}, ("a.test", "127.0.0.1"), False),
        ({"client_allowed_sans": ["prometheus.test"]}, ("other.prometheus.test",), False),
    ],
)
@asynchronous
async def test_a_clients_certificate(
    serving: Serving, site: Site, tls: dict[str, Any], names: tuple[str, ...], admitted: bool
) -> None:
    given = {"client_ca_file": "ca.pem", "client_auth_type": "RequireAndVerifyClientCert", **tls}
    async with (
        serving(web_config_file=site.write(given)) as (exporter, http),
        over_tls(http, site.client(*names)) as https,
    ):
        assert exporter.access.identifies is (
            given["client_auth_type"] == "RequireAndVerifyClientCert"
        )
        if admitted:
            assert (await https.get("/healthz")).status_code == 200
        else:
            with pytest.raises((httpx.NetworkError, httpx.RemoteProtocolError)):
                await https.get("/healthz")
        await https.aclose()
        await ended(exporter)


@asynchronous
async def test_the_authority_need_not_be_a_root(serving: Serving, site: Site) -> None:
    child = site.authority.create_child_ca()
    child.cert_pem.write_to_path(str(site.folder / "child.pem"))
    tls = {"client_ca_file": "child.pem", "client_auth_type": "RequireAndVerifyClientCert"}
    context = site.client()
    child.issue_cert("prometheus.test").configure_cert(context)
    async with (
        serving(web_config_file=site.write(tls)) as (_, http),
        over_tls(http, context) as https,
    ):
        assert (await https.get("/healthz")).status_code == 200


@asynchronous
async def test_a_certificate_of_another_authority_is_none(serving: Serving, site: Site) -> None:
    tls = {"client_ca_file": "ca.pem", "client_auth_type": "VerifyClientCertIfGiven"}
    stranger = Site(site.folder.parent).authority.issue_cert("prometheus.test")
    context = site.client()
    stranger.configure_cert(context)
    async with (
        serving(web_config_file=site.write(tls)) as (_, http),
        over_tls(http, context) as https,
    ):
        with pytest.raises((httpx.NetworkError, httpx.RemoteProtocolError)):
            await https.get("/healthz")


@asynchronous
async def test_old_versions_of_tls_are_refused(serving: Serving, site: Site) -> None:
    context = site.client()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    async with (
        serving(web_config_file=site.write({"min_version": "TLS13"})) as (_, http),
        over_tls(http, context) as https,
    ):
        with pytest.raises(httpx.ConnectError):
            await https.get("/healthz")


@pytest.mark.parametrize(
    ("auth", "status"),
    [
        (("alice", "open sesame"), 200),
        (("alice", "open sesam"), 401),
        (("alice", "another"), 401),
        (("alice", ""), 401),
        (("bob", "another"), 200),
        (("mallory", "open sesame"), 401),
        (("", ""), 401),
        (("alice", "nul\0"), 401),
        (("ALICE", "open sesame"), 401),
        (None, 401),
    ],
)
@asynchronous
async def test_a_password_is_asked_for_on_every_page(
    serving: Serving, site: Site, auth: tuple[str, str] | None, status: int
) -> None:
    path = site.write({}, basic_auth_users={"alice": HASH, "bob": OTHER})
    async with serving(web_config_file=path) as (exporter, http):
        assert exporter.access.identifies
        assert not exporter.access.encrypts
        for page in PAGES:
            answer = await http.get(page, auth=auth)
            assert answer.status_code == (404 if page == "/nope" and status == 200 else status)
            if status == 401:
                assert answer.headers["WWW-Authenticate"].startswith('Basic realm="')
                assert answer.text == "Unauthorized\n"


@pytest.mark.parametrize(
    "header",
    [
        "Basic",
        "Basic YWxpY2U=",  # without a colon
        "Basic YWxpY2U6b3BlbiBzZXNhbWU",  # cut off
        "Basic !!!",
        "Basic /zo=",
        "Bearer YWxpY2U6b3BlbiBzZXNhbWU=",
        "Digest YWxpY2U6b3BlbiBzZXNhbWU=",
        "Basic YWxp!Y2U6b3BlbiBzZXNhbWU=",
        "YWxpY2U6b3BlbiBzZXNhbWU=",
        "Basic " + "A" * 7000,
        "Basic \xff",
    ],
)
@asynchronous
async def test_what_is_no_password_is_refused(serving: Serving, site: Site, header: str) -> None:
    async with serving(web_config_file=site.write({}, basic_auth_users={"alice": HASH})) as (
        _,
        http,
    ):
        sent = {"Authorization": header.encode("latin-1")}
        assert (await http.get("/metrics", headers=sent)).status_code == 401
        good = {"Authorization": "bAsIc  YWxpY2U6b3BlbiBzZXNhbWU="}
        assert (await http.get("/metrics", headers=good)).status_code == 200


@asynchronous
async def test_a_proven_password_is_not_hashed_again(
    serving: Serving, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[bytes] = []
    check = bcrypt.checkpw

    def counted(password: bytes, secret: bytes) -> bool:
        hashed.append(password)
        return check(password, secret)

    monkeypatch.setattr(bcrypt, "checkpw", counted)
    path = site.write({}, basic_auth_users={"alice": HASH})
    async with serving(web_config_file=path) as (_, http):
        for _ in range(3):
            assert (await http.get("/healthz", auth=("alice", "open sesame"))).status_code == 200
        assert hashed == [b"open sesame"]
        for _ in range(2):
            assert (await http.get("/healthz", auth=("alice", "wrong"))).status_code == 401
        # Whoever does not exist costs the same time.
        assert (await http.get("/healthz", auth=("eve", "open sesame"))).status_code == 401
        assert hashed == [b"open sesame", b"wrong", b"wrong", b"open sesame"]


@asynchronous
async def test_a_user_who_was_renamed_is_not_known_by_the_old_name(
    serving: Serving, site: Site
) -> None:
    async with serving(web_config_file=site.write({}, basic_auth_users={"alice": HASH})) as (
        _,
        http,
    ):

        async def status(name: str) -> int:
            return (await http.get("/healthz", auth=(name, "open sesame"))).status_code

        assert await status("alice") == 200
        site.write({}, basic_auth_users={"bob": HASH})
        assert [await status("alice"), await status("bob")] == [401, 200]


@asynchronous
async def test_guesses_wait_in_a_short_line_and_hold_up_nobody_else(
    serving: Serving, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = threading.Event()
    check = bcrypt.checkpw

    def slow(password: bytes, secret: bytes) -> bool:
        assert threading.current_thread() is not threading.main_thread()
        assert password == b"open sesame" or go.wait(20)
        return check(password, secret)

    monkeypatch.setattr(bcrypt, "checkpw", slow)
    async with serving(web_config_file=site.write({}, basic_auth_users=USERS)) as (exporter, http):
        good = ("alice", "open sesame")
        assert (await http.get("/healthz", auth=good)).status_code == 200
        guesses = [
            asyncio.create_task(http.get("/healthz", auth=("alice", f"guess {n}")))
            for n in range(MOST_GUESSES)
        ]
        while exporter.access._guesses < MOST_GUESSES:  # noqa: ASYNC110  # nothing tells of it
            await asyncio.sleep(0.01)
        one_more = await http.get("/healthz", auth=("alice", "one more"))
        assert (one_more.status_code, one_more.headers["Retry-After"]) == (503, "1")
        assert (await http.get("/healthz", auth=good)).status_code == 200
        go.set()
        assert [(await guess).status_code for guess in guesses] == [401] * MOST_GUESSES
        assert exporter.access._guesses == 0


@asynchronous
async def test_a_long_password_counts_as_bcrypt_counts_it(serving: Serving, site: Site) -> None:
    long = "x" * 72
    secret = bcrypt.hashpw(long.encode(), bcrypt.gensalt(4)).decode()
    async with serving(web_config_file=site.write({}, basic_auth_users={"a": secret})) as (_, http):
        assert (await http.get("/healthz", auth=("a", long + "y"))).status_code == 200
        assert (await http.get("/healthz", auth=("a", long[1:]))).status_code == 401


@asynchronous
async def test_headers_are_added_to_every_page(serving: Serving, site: Site) -> None:
    headers = {"Strict-Transport-Security": "max-age=60", "X-Frame-Options": ""}
    path = site.write(http_server_config={"http2": True, "headers": headers})
    async with (
        serving(web_config_file=path) as (_, http),
        over_tls(http, site.client()) as https,
    ):
        for page in PAGES:
            answer = await https.get(page)
            assert answer.headers["Strict-Transport-Security"] == "max-age=60"
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert "X-Frame-Options" not in answer.headers


@asynchronous
async def test_certificates_and_users_are_renewed_while_it_runs(
    serving: Serving, site: Site
) -> None:
    async def serial() -> str:
        async with over_tls(http, site.client()) as https:
            answer = await https.get("/healthz", auth=("alice", "open sesame"))
            served = answer.extensions["network_stream"].get_extra_info("ssl_object")
            assert answer.status_code in (200, 401)
            return f"{served.getpeercert()['serialNumber']} {answer.status_code}"

    async with serving(web_config_file=site.write(basic_auth_users={"alice": HASH})) as (
        exporter,
        http,
    ):
        read = exporter.access._web
        first = await serial()
        assert await serial() == first
        assert exporter.access._web is read  # not again
        await ended(exporter)  # so that the next one is the first to look
        site.issue()
        second = await serial()
        assert second.split()[0] != first.split()[0]
        assert second.endswith(" 200")
        site.write(basic_auth_users={"alice": OTHER})
        assert await serial() == second.replace(" 200", " 401")
    assert exporter.access._thread._shutdown


def terms_now(access: Access) -> object:
    access.refresh()
    return access.terms


@pytest.mark.parametrize("change", ["chmod", "rename"])
def test_a_change_is_seen_whatever_it_leaves_as_it_was(
    site: Site, change: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    access = Access(site.write({}, basic_auth_users={"alice": HASH}))
    assert terms_now(access) is None
    read, status = access._web, os.stat(site.file)
    if change == "chmod":  # who could not read it may now
        site.file.chmod(0o600)
    else:
        other = site.folder / "other"
        other.write_text(site.file.read_text())
        os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
        other.rename(site.file)
    assert terms_now(access) is None
    assert access._web is not read
    assert caplog.messages == ["web_config_file: read anew"]
    access.close()


def test_what_was_not_accepted_is_tried_again(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    now = 100.0
    access = Access(site.write(), clock=lambda: now)
    before = terms_now(access)
    site.write({"cert_file": "new.pem", "min_version": "TLS13"})
    assert terms_now(access) == before
    now += RETRY + 1
    assert terms_now(access) == before  # not said again
    (site.folder / "new.pem").write_bytes((site.folder / "cert.pem").read_bytes())
    now += RETRY - 1
    assert terms_now(access) == before
    now += 2
    assert terms_now(access) != before
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    (site.folder / "new.pem").unlink()
    assert terms_now(access) != before
    assert [record.levelname for record in caplog.records] == ["ERROR"] * 2
    access.close()


GUARDED = {
    "client_auth_type": "RequireAndVerifyClientCert",
    "client_ca_file": "ca.pem",
    "client_allowed_sans": ["prometheus.test"],
}
USERS = {"alice": HASH}


@pytest.mark.parametrize(
    ("tls", "users", "gone"),
    [
        ({}, {}, "tls_server_config, basic_auth_users, client_allowed_sans, client_auth_type"),
        ({}, USERS, "tls_server_config, client_allowed_sans, client_auth_type"),
        (GUARDED, {}, "basic_auth_users"),
        (None, USERS, "client_allowed_sans, client_auth_type"),
        ({**GUARDED, "client_allowed_sans": []}, USERS, "client_allowed_sans"),
    ],
)
def test_a_file_that_would_open_what_was_closed_changes_nothing(
    site: Site,
    caplog: pytest.LogCaptureFixture,
    tls: dict[str, Any] | None,
    users: dict[str, str],
    gone: str,
) -> None:
    """As a half-written one would."""
    access = Access(site.write(GUARDED, basic_auth_users=USERS))
    read = access._web
    site.write(tls, basic_auth_users=users)
    for _ in range(3):
        assert terms_now(access) is not None
        assert access.encrypts
        assert access._web is read
    (record,) = caplog.records
    assert record.getMessage() == (
        f"web_config_file takes away {gone}: restart for that; what was read before stays in force"
    )
    access.close()


@asynchronous
async def test_kept_connections_end_once_there_are_new_terms(serving: Serving, site: Site) -> None:
    path = site.write({}, basic_auth_users=USERS)
    auth = ("alice", "open sesame")
    async with serving(web_config_file=path) as (_, http), over_tls(http, site.client()) as https:
        assert (await http.get("/healthz", auth=auth)).status_code == 200
        site.write(basic_auth_users=USERS)
        with pytest.raises(httpx.RemoteProtocolError):  # from here on only TLS is spoken
            await http.get("/healthz", auth=auth)
        first = await https.get("/healthz", auth=auth)
        site.issue()
        site.write(basic_auth_users={**USERS, "bob": OTHER})
        second = await https.get("/healthz", auth=("bob", "another"))
        streams = [answer.extensions["network_stream"] for answer in (first, second)]
        addresses = {stream.get_extra_info("client_addr") for stream in streams}
        assert len(addresses) == 1  # neither a new certificate nor a new user ends it
        site.write(GUARDED, basic_auth_users=USERS)
        with pytest.raises((httpx.NetworkError, httpx.RemoteProtocolError)):
            await https.get("/healthz", auth=auth)


@asynchronous
async def test_a_file_that_breaks_while_it_runs_changes_nothing_and_is_logged_once(
    serving: Serving, site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    path = site.write({}, basic_auth_users={"alice": HASH})
    async with serving(web_config_file=path) as (_, http):

        async def status(password: str) -> int:
            return (await http.get("/healthz", auth=("alice", password))).status_code

        assert await status("open sesame") == 200
        for broken in ("basic_auth_users: {alice: hunter2}", "tls_server_config: [", None):
            caplog.clear()
            site.file.unlink() if broken is None else site.file.write_text(broken)
            assert [await status("open sesame"), await status("wrong")] == [200, 401]
            assert [record.levelno for record in caplog.records] == [logging.ERROR]
            assert "stays in force" in caplog.text
            assert "hunter2" not in caplog.text
        site.write({}, basic_auth_users={"alice": OTHER})
        assert [await status("open sesame"), await status("another")] == [401, 200]
