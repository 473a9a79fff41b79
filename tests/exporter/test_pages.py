"""What each path answers."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import pytest

from tests.exporter.traffic import asynchronous, dialled, open_connections
from ws_lifecycle_metrics.exporter import pages
from ws_lifecycle_metrics.exporter.index import LINKS
from ws_lifecycle_metrics.store.snapshot import Source

if TYPE_CHECKING:
    from pathlib import Path

    from tests.exporter.conftest import Serving

PATHS = ["/", *LINKS]
SCRIPT = '<script src="//evil.test">"&\'</script>'


@pytest.mark.parametrize(
    ("path", "accept", "content_type"),
    [
        ("/", "*/*", "text/html; charset=utf-8"),
        ("/metrics", "*/*", "text/plain; version=0.0.4; charset=utf-8"),
        ("/healthz", "*/*", "text/plain; charset=utf-8"),
        ("/readyz", "*/*", "text/plain; charset=utf-8"),
        ("/connections", "*/*", "application/json"),
        ("/workers", "*/*", "application/json"),
    ],
)
@asynchronous
async def test_each_page_has_its_type_and_forbids_sniffing(
    serving: Serving, path: str, accept: str, content_type: str
) -> None:
    async with serving() as (_, http):
        answer = await http.get(path, headers={"Accept": accept})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == content_type
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    assert "server" not in answer.headers


@asynchronous
async def test_openmetrics_is_given_to_who_accepts_it(serving: Serving) -> None:
    accept = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"
    async with serving() as (_, http):
        answer = await http.get("/metrics", headers={"Accept": accept})
        plain = await http.get("/metrics")
    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert answer.text.endswith("# EOF\n")
    assert not plain.text.endswith("# EOF\n")


@pytest.mark.parametrize(
    "accept",
    [
        "application/openmetrics-text;version=junk",
        "application/openmetrics-text;version=1.0.0;escaping=../x",
        ",;=,q",
        "text/plain;version=9999999999.x",
        "x" * 5000,
    ],
)
@asynchronous
async def test_no_accept_header_breaks_the_metrics(serving: Serving, accept: str) -> None:
    async with serving() as (_, http):
        answer = await http.get("/metrics", headers={"Accept": accept})
    assert answer.status_code == 200
    assert "ws_lifecycle_metrics_collector_success 1.0" in answer.text


@pytest.mark.parametrize("path", PATHS)
@asynchronous
async def test_head_gets_the_header_of_get_alone(serving: Serving, path: str) -> None:
    async with serving() as (exporter, http):
        got = await http.get(path)
        client = set(exporter._served)
        head = await http.head(path)
        again = await http.get(path)
        assert exporter._served == client  # on the same connection: no byte was too many
    assert head.status_code == 200
    assert head.content == b""
    assert head.headers["content-type"] == got.headers["content-type"]
    assert int(head.headers["content-length"]) > 0
    assert again.status_code == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "JUNK"])
@asynchronous
async def test_it_only_reads(serving: Serving, method: str) -> None:
    async with serving() as (_, http):
        answer = await http.request(method, "/metrics")
    assert answer.status_code == 405
    assert answer.headers["allow"] == "GET, HEAD"


@pytest.mark.parametrize(
    "path",
    [
        "/nope",
        "/metrics/",
        "//metrics",
        "/../metrics",
        "/%6detrics",
        "*",
        "http://localhost//metrics",
    ],
)
@asynchronous
async def test_other_paths_are_not_found(serving: Serving, path: str) -> None:
    async with serving() as (_, http), dialled(http) as (reader, writer):
        writer.write(
            f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
        )
        answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 404 ")
    assert answer.endswith(b"\r\n\r\nNot Found\n")


@asynchronous
async def test_connections_are_objects_worst_first(serving: Serving, tmp_path: Path) -> None:
    async with serving() as (_, http), open_connections(tmp_path, "/a", "/b", "/hangs!"):
        found = (await http.get("/connections")).json()
        part = (await http.get("/connections?limit=1&offset=1")).json()
    assert found["service"] == "test"
    assert found["total"] == 3
    assert found["workers"] == 1
    worst, *others = found["connections"]
    assert worst["route"] == "/hangs!"
    assert worst["state"] == "closing"
    assert worst["waits_for"] == "application"
    assert worst["violations"] == 1
    assert {c["route"] for c in others} == {"/a", "/b"}
    for connection in others:
        assert connection["state"] == "open"
        assert connection["waits_for"] == "receive"
        assert connection["received_messages"] == connection["sent_messages"] == 1
        assert connection["received_bytes"] == len("hello")
        assert connection["sent_bytes"] == len("welcome")
        assert connection["age"] >= connection["silent"] >= 0
    assert [c["id"] for c in part["connections"]] == [found["connections"][1]["id"]]
    assert part["total"] == 3


@pytest.mark.parametrize(
    "query",
    ["limit=x", "limit=-1", "limit=1001", "limit=", "offset=1e9", "limit=٣", "offset=99999999999"],
)
@asynchronous
async def test_a_bad_query_is_named(serving: Serving, query: str) -> None:
    async with serving() as (_, http):
        answer = await http.get(f"/connections?{query}")
    assert answer.status_code == 400
    assert answer.text.startswith(query.partition("=")[0])
    assert "accepted is a whole number from 0 to 1" in answer.text


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("bogus=1", "'bogus': accepted are http_route, state, stuck, worker, limit, offset"),
        ("route=/", "'route': accepted are http_route"),
        ("=", "'': accepted are"),
        ("%1b%5b31m=", r"'\x1b[31m': accepted are"),
        ("state=zzz", "state='zzz': accepted are orphaned, closing, connecting, open\n"),
        ("state=", "state='': accepted are orphaned"),
        ("state=%0a", r"state='\n': accepted are orphaned"),
        ("stuck=bogus", "stuck='bogus': accepted are any, "),
        ("stuck=bogus&limit=0", "stuck='bogus'"),
        ("worker=1&worker=0", "worker: given 2 times"),
        ("limit=1&limit=1", "limit: given 2 times"),
        ("&".join(["state=open"] * 11), "Max number of fields exceeded"),
    ],
)
@asynchronous
async def test_what_cannot_be_asked_for_is_told_with_what_can(
    serving: Serving, query: str, said: str
) -> None:
    async with serving() as (_, http):
        answer = await http.get(f"/connections?{query}")
    assert answer.status_code == 400
    assert answer.text.startswith(said)


@asynchronous
async def test_whatever_can_be_asked_for_is_answered(serving: Serving, tmp_path: Path) -> None:
    async with serving() as (_, http), open_connections(tmp_path, "/a", "/hangs!"):
        for name, values in pages.VALUES.items():
            for value in values:
                answer = await http.get("/connections", params={name: value})
                assert answer.status_code == 200, value
        shown = (await http.get("/connections")).json()["connections"]
        for wanted in shown:
            query = {name: wanted[key] for name, key in pages.FILTERS.items() if wanted[key]}
            found = (await http.get("/connections", params=query)).json()["connections"]
            assert [c["id"] for c in found] == [wanted["id"]]
        for query in ("http_route=/new", "worker=99"):  # more may come
            answer = await http.get(f"/connections?{query}")
            assert (answer.status_code, answer.json()["total"]) == (200, 0)


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.attributes: set[str] = set()
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.attributes.update(name for name, _ in attrs)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@asynchronous
async def test_the_index_shows_hostile_route_names_as_text(
    serving: Serving, tmp_path: Path
) -> None:
    async with serving() as (_, http), open_connections(tmp_path, SCRIPT, "/hangs!"):
        page = (await http.get("/")).text
    tags = _Tags()
    tags.feed(page)
    assert SCRIPT in tags.texts
    assert "script" not in tags.names
    assert not any(name.startswith("on") or name == "src" for name in tags.attributes)
    assert re.search(r"<dt>workers</dt><dd>1</dd>", page)
    assert re.search(r"<dt>open</dt><dd>1</dd>", page)
    assert re.search(r"<dt>closing</dt><dd>1</dd>", page)
    assert re.search(r"<dt>violations</dt><dd>1</dd>", page)


@asynchronous
async def test_the_index_allows_its_own_style_and_nothing_else(serving: Serving) -> None:
    async with serving() as (_, http):
        answer = await http.get("/")
    style = re.search(r"<style>(.*)</style>", answer.text, re.DOTALL)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    policy = answer.headers["content-security-policy"]
    assert f"style-src 'sha256-{digest}'" in policy
    assert "unsafe" not in policy
    assert "script-src" not in policy
    assert "color-scheme: light dark" in style[1]


@asynchronous
async def test_nothing_is_called_well_while_the_directory_is_not_safe(
    serving: Serving, tmp_path: Path
) -> None:
    (tmp_path / "test").mkdir()
    (tmp_path / "test").chmod(0o777)
    async with serving() as (_, http):
        answers = {path: await http.get(path) for path in PATHS}
    assert {path: answer.status_code for path, answer in answers.items()} == {
        "/": 200,
        "/metrics": 200,
        "/healthz": 200,  # a restart would mend nothing
        "/readyz": 503,
        "/connections": 503,
        "/workers": 503,
    }
    for path in ("/", "/readyz", "/connections", "/workers"):
        assert "mode 0777 lets others write" in answers[path].text
    assert "ws_lifecycle_metrics_storage_degraded 1.0" in answers["/metrics"].text


@asynchronous
async def test_a_failing_collection_fails_no_scrape(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Source) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(Source, "take", fail)
    async with serving() as (_, http):
        answers = {path: await http.get(path) for path in PATHS}
    assert {path: answer.status_code for path, answer in answers.items()} == {
        "/": 200,
        "/metrics": 200,
        "/healthz": 200,
        "/readyz": 503,
        "/connections": 503,
        "/workers": 503,
    }
    assert "ws_lifecycle_metrics_collector_success 0.0" in answers["/metrics"].text
    assert "the collection failed" in answers["/"].text
    assert not any("secret" in answer.text for answer in answers.values())
