"""The exposition: the same text for the same traffic, valid for Prometheus, whatever comes in."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client import Counter as OwnCounter
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from ws_lifecycle_metrics import (
    Config,
    LifecycleCollector,
    LifecycleMiddleware,
    catalog,
    metrics_app,
)
from ws_lifecycle_metrics.catalog import METRICS, Kind
from ws_lifecycle_metrics.labels import safe_label
from ws_lifecycle_metrics.store import workers
from ws_lifecycle_metrics.store.snapshot import Snapshot, Source
from ws_lifecycle_metrics.telemetry import logs
from ws_lifecycle_metrics.telemetry.prometheus import render

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden" / "metrics.txt"

SCOPE = {
    "type": "websocket",
    "asgi": {"version": "3.0", "spec_version": "2.4"},
    "http_version": "1.1",
    "scheme": "ws",
    "raw_path": b"/",
    "query_string": b"",
    "root_path": "",
    "headers": [],
    "client": ("127.0.0.1", 40000),
    "server": ("127.0.0.1", 8000),
    "subprotocols": ["chat.v1"],
    "extensions": {"websocket.http.response": {}},
}
CONNECT = {"type": "websocket.connect"}
TEXT = {"type": "websocket.receive", "text": "grüße"}
BINARY = {"type": "websocket.receive", "bytes": b"\0\1\2"}
GONE = {"type": "websocket.disconnect", "code": 1001}
ACCEPT = {"type": "websocket.accept", "subprotocol": "chat.v1"}
SAY = {"type": "websocket.send", "text": "hello"}
SHOW = {"type": "websocket.send", "bytes": b"\0" * 10}
LEAVE = {"type": "websocket.close", "code": 4400}


@pytest.fixture
def config(tmp_path):
    yield Config(
        service="tested",
        directory=str(tmp_path),
        route=lambda scope: scope["path"],
        routes=("/chat", "/idle"),
    )
    workers._close_all()
    workers._here.by_place.clear()
    workers._ended.clear()


async def converse(config: Config, path: str, *steps: Any) -> None:
    """Play a conversation: the server's events are received, the application's are sent."""
    events = iter([step for step in steps if is_received(step)])

    async def receive() -> Any:
        return next(events)

    async def send(message: Any) -> None:
        pass

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for step in steps:
            if isinstance(step, Exception):
                raise step
            if callable(step):
                await step()
            elif is_received(step):
                await receive()
            else:
                await send(step)

    await LifecycleMiddleware(app, config=config)({**SCOPE, "path": path}, receive, send)


def is_received(step: Any) -> bool:
    kinds = {"websocket.connect", "websocket.receive", "websocket.disconnect"}
    return isinstance(step, dict) and step["type"] in kinds


async def fixed_traffic(config: Config, then: Callable[[], object]) -> None:
    for _ in range(3):
        await converse(config, "/chat", CONNECT, ACCEPT, TEXT, SAY, BINARY, SHOW, GONE)
    await converse(config, "/chat", CONNECT, ACCEPT, SAY, LEAVE, SAY)  # one too many
    await converse(config, "/feed", CONNECT, {"type": "websocket.close"})
    await converse(config, "/feed", CONNECT, GONE)
    with pytest.raises(ZeroDivisionError):
        await converse(config, "/feed", CONNECT, ACCEPT, ZeroDivisionError())
    opened = asyncio.Semaphore(0)

    async def wait() -> None:
        opened.release()
        await asyncio.Event().wait()

    idle = [asyncio.create_task(converse(config, "/idle", CONNECT, ACCEPT, wait)) for _ in "ab"]
    idle.append(asyncio.create_task(converse(config, "/idle", CONNECT, wait)))
    for _ in idle:
        await opened.acquire()
    try:
        then()
    finally:
        for task in idle:
            task.cancel()
        await asyncio.gather(*idle, return_exceptions=True)


def during_traffic(config: Config, accept: str = "") -> str:
    found = []
    take = Source(config).take
    asyncio.run(fixed_traffic(config, lambda: found.append(render(take, accept)[0])))
    return found[0].decode()


MOMENT = re.compile(
    r"^(\w+(?:timestamp|exporter_time|collect_duration)_seconds(?:\{.*\})?) .*[1-9].*$",
    re.MULTILINE,
)


def masked(text: str) -> str:
    """Replace what differs from run to run: times that are not 0, and the version."""
    return re.sub(r'(build_info\{version=)"[^"]+"', r'\1"*"', MOMENT.sub(r"\1 *", text))


@pytest.fixture
def no_time_passes(monkeypatch):
    """Let every duration be 0, so that it lands in the first bucket on any machine."""
    monkeypatch.setattr("ws_lifecycle_metrics.conversation._now", lambda: 10**15)


def test_fixed_traffic_gives_the_golden_text(config, no_time_passes):
    text = masked(during_traffic(config))
    if os.environ.get("UPDATE_GOLDEN"):
        GOLDEN.write_text(text)
    golden = GOLDEN.read_text() if GOLDEN.exists() else ""
    assert text == golden, "if this is meant: UPDATE_GOLDEN=1, and look at the difference"


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is missing; .ci/run installs it")
@pytest.mark.parametrize("when", ["before any traffic", "during traffic"])
def test_promtool_has_no_finding(config, when):
    text = during_traffic(config) if "during" in when else render(Source(config).take)[0].decode()
    done = subprocess.run(
        ["promtool", "check", "metrics"],
        input=text,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


OPENMETRICS = "application/openmetrics-text; version=1.0.0,text/plain;q=0.5"


def test_openmetrics_is_parsed_and_has_the_same_samples(config, no_time_passes):
    text = during_traffic(config, OPENMETRICS)
    assert text.endswith("# EOF\n")
    families = list(parse_openmetrics(text))
    assert {f.name for f in families} == {
        m.prometheus.removesuffix("_total") for m in METRICS.values()
    }
    golden = {
        (s.name, tuple(sorted(s.labels.items())))
        for f in parse_text(GOLDEN.read_text().replace(" *\n", " 1\n"))
        for s in f.samples
        if "version" not in s.labels
    }
    found = {(s.name, tuple(sorted(s.labels.items()))) for f in families for s in f.samples}
    assert golden <= found


def request(config: Config, method: str = "GET", **headers: bytes) -> tuple[int, dict, bytes]:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    found = [(name.replace("_", "-").encode(), value) for name, value in headers.items()]
    scope = {"type": "http", "method": method, "headers": found}
    asyncio.run(metrics_app(config)(scope, None, send))
    start, body = sent
    return start["status"], dict(start["headers"]), body["body"]


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        (None, b"text/plain"),
        (b"", b"text/plain"),
        (b"text/plain", b"text/plain"),
        (b"*/*", b"text/plain"),
        (b"\xff\xfe;;,q=", b"text/plain"),
        (OPENMETRICS.encode(), b"application/openmetrics-text"),
        (b"text/plain, Application/OpenMetrics-Text", b"application/openmetrics-text"),
        (b"application/openmetrics-text; Q=0.5, */*;q=0.6", b"application/openmetrics-text"),
        (b"application/openmetrics-text;q=0", b"text/plain"),
        (b"application/openmetrics-text; q=0.000, */*", b"text/plain"),
        (b"application/openmetrics-text;q=0.001", b"application/openmetrics-text"),
        # As Prometheus asks whose scrape_protocols name the text first.
        (b"text/plain;q=0.6,application/openmetrics-text;q=0.5,*/*;q=0.4", b"text/plain"),
        (b"text/plain;q=0.5,application/openmetrics-text;q=0.5", b"application/openmetrics-text"),
        (b"application/openmetrics-text;q=never", b"application/openmetrics-text"),
        (
            b"application/openmetrics-text;version=1.0.0;q=0.6,text/plain;q=0.5,"
            b"application/openmetrics-text;version=0.0.1;q=0.4",
            b"application/openmetrics-text",
        ),
    ],
)
def test_the_accept_header_chooses_the_format(config, accept, content_type):
    status, headers, body = request(config, **({} if accept is None else {"Accept": accept}))
    assert status == 200
    assert headers[b"content-type"].startswith(content_type)
    assert int(headers[b"content-length"]) == len(body)
    assert body.rstrip().endswith(b"# EOF") == (b"openmetrics" in content_type)


def test_no_other_header_chooses_the_format(config):
    others = {"Accept_Encoding": OPENMETRICS.encode(), "User_Agent": OPENMETRICS.encode()}
    _, headers, _ = request(config, Accept=b"text/plain", **others)
    assert headers[b"content-type"].startswith(b"text/plain")


def test_on_trio_the_metrics_are_answered_too(config):
    app = metrics_app(config)
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def main() -> None:
        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(
                        app, {"type": "http", "method": "GET", "headers": []}, None, send
                    )

    for _ in range(2):  # each on a loop of its own
        trio.run(main)
    bodies = [message["body"] for message in sent if "body" in message]
    assert len(bodies) == 6
    assert all(b"ws_lifecycle_metrics_collector_success 1.0" in body for body in bodies)


def test_head_has_the_length_and_no_body(config):
    status, headers, body = request(config, "HEAD")
    assert (status, body) == (200, b"")
    assert int(headers[b"content-length"]) > 1000


def test_only_what_reads_is_answered(config):
    status, headers, body = request(config, "POST")
    assert (status, headers[b"allow"], body) == (405, b"GET, HEAD", b"")


def test_who_asks_during_a_collection_shares_its_result(config, monkeypatch):
    taken = []
    take = Source.take

    def slowly(source: Source) -> Snapshot:
        taken.append(source)
        all_ask.wait(10)
        return take(source)

    monkeypatch.setattr(Source, "take", slowly)
    all_ask = threading.Event()
    app = metrics_app(config)
    bodies = []

    async def ask(accept: bytes) -> None:
        async def send(message: Any) -> None:
            bodies.append(message.get("body"))

        await app({"type": "http", "method": "GET", "headers": [(b"accept", accept)]}, None, send)

    async def ask_together() -> None:
        asking = [asyncio.create_task(ask(a)) for a in (b"*/*", b"", OPENMETRICS.encode()) * 10]
        await asyncio.sleep(0)
        asking[0].cancel()
        all_ask.set()
        await asyncio.gather(*asking[1:])
        await ask(b"")

    asyncio.run(ask_together())
    assert len(taken) == 2 + 1  # one of each format, and one for who came later
    assert len(bodies) == 2 * 30
    assert all(body is None or body.rstrip().count(b"collector_success 1.0") for body in bodies)


def test_the_endpoint_serves_nothing_but_http(config):
    with pytest.raises(ValueError, match="not 'websocket'"):
        asyncio.run(metrics_app(config)({"type": "websocket"}, None, None))


HOSTILE = {
    "a newline": "/a\nb",
    "a quote": '/a"b',
    "a backslash": "/a\\b",
    "a backslash and n": "/a\\nb",
    "an escape sequence": "/\x1b[2J\x1b]0;owned\x07",
    "NUL": "/\0",
    "bidi": "/\u202egnp.exe",
    "a line separator": "/a\u2028b",
    "a lone surrogate": "/\ud800",
    "a closing brace": '/"} 9\nfake_total 7\n#',
    "any language": "/größe/日本/🙂",
    "very long": "/" + "x" * 10_000,
}


@pytest.mark.parametrize("route", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize(("accept", "parse"), [("", parse_text), (OPENMETRICS, parse_openmetrics)])
def test_a_hostile_label_value_is_harmless(config, route, accept, parse):
    asyncio.run(converse(config, route, CONNECT, ACCEPT, GONE))
    text = render(Source(config).take, accept)[0].decode()
    assert not {c for c in text if not c.isprintable()} - {"\n"}
    counted = Counter(
        sample.labels["http_route"]
        for family in parse(text)
        for sample in family.samples
        if sample.name == "websocket_server_handshakes_total" and sample.value == 1
    )
    assert counted == {safe_label(route): 1}
    assert "fake_total" not in {family.name for family in parse(text)}


def series(text: str) -> list[str]:
    return [line.rpartition(" ")[0] for line in text.splitlines() if not line.startswith("#")]


def test_known_series_stand_at_0_before_any_traffic(config):
    workers.current(config)  # the configured routes are known from its start
    snapshot = Source(config).take()
    families = {family.metric: family.series for family in snapshot.families()}
    assert list(families) == list(METRICS.values())
    for metric in METRICS.values():
        routes = [("other",), ("/chat",), ("/idle",)] if "http_route" in metric.labels else [()]
        routes = [("0",)] if "worker" in metric.labels else routes
        if metric.kind is Kind.COUNTER and metric.block in (None, "worker", "route"):
            wanted = {(*route, *labels): 0 for route in routes for labels in metric.zeros}
            assert families[metric] == wanted
        if metric.kind is Kind.HISTOGRAM and metric.block == "route":
            assert {sum(found.counts) for found in families[metric].values()} == {0}
            assert len(families[metric]) == len(routes)


def test_the_collector_works_in_a_foreign_registry(config):
    registry = CollectorRegistry(auto_describe=True)
    own = OwnCounter("own", "The application's own.", registry=registry)
    own.inc()
    registry.register(LifecycleCollector(config))
    asyncio.run(converse(config, "/chat", CONNECT, ACCEPT, GONE))
    text = generate_latest(registry).decode()
    assert "own_total 1.0" in text
    accepted = 'websocket_server_handshakes_total{http_route="/chat",result="accepted"} 1.0'
    assert accepted in text
    with pytest.raises(ValueError, match="Duplicated"):
        registry.register(LifecycleCollector(config))


def test_what_it_describes_is_what_it_collects(config):
    collector = LifecycleCollector(config)
    described = [(m.name, m.type, m.documentation) for m in collector.describe()]
    assert described == [(m.name, m.type, m.documentation) for m in collector.collect()]


def test_the_collector_works_beside_prometheus_clients_multiprocess_mode(config, tmp_path):
    asyncio.run(converse(config, "/chat", CONNECT, ACCEPT, GONE))
    code = """
import sys
from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from ws_lifecycle_metrics import Config, LifecycleCollector
Counter("own", "The application's own.").inc(3)
registry = CollectorRegistry()
MultiProcessCollector(registry)
registry.register(LifecycleCollector(Config(service="tested", directory=sys.argv[1])))
print(generate_latest(registry).decode())
"""
    (tmp_path / "multiprocess").mkdir()
    text = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "multiprocess")},
        cwd=ROOT, capture_output=True, text=True, check=True, timeout=60,
    ).stdout  # fmt: skip
    assert "own_total 3.0" in text
    assert 'handshakes_total{http_route="/chat",result="accepted"} 1.0' in text


def fail() -> Snapshot:
    raise RuntimeError("no segments today")


def test_a_failing_collection_is_served_and_told(caplog, monkeypatch):
    monkeypatch.setattr(logs, "_limit", logs.RateLimit())
    registry = CollectorRegistry()
    own = OwnCounter("own", "The application's own.", registry=registry)
    own.inc()
    registry.register(LifecycleCollector(take=fail))
    text = generate_latest(registry).decode()
    assert "own_total 1.0" in text
    assert "ws_lifecycle_metrics_collector_success 0.0" in text
    assert "websocket_server" not in text
    assert "no segments today" in caplog.text


def test_a_failing_collection_does_not_fail_the_endpoint(config, monkeypatch):
    monkeypatch.setattr(Source, "take", lambda self: fail())
    status, _, body = request(config)
    assert status == 200
    assert series(body.decode()) == ["ws_lifecycle_metrics_collector_success"]


def test_a_thousand_paths_add_no_series_beyond_the_cap(tmp_path, config):
    def visit(first: int, last: int) -> set[str]:
        async def all_of_them() -> None:
            for number in range(first, last):
                await converse(config, f"/user/{number}", CONNECT, ACCEPT, TEXT, GONE)

        asyncio.run(all_of_them())
        return set(series(render(Source(config).take)[0].decode()))

    full = visit(0, config.max_routes)
    assert visit(config.max_routes, 1000) == full
    snapshot = Source(config).take()
    (overflow,) = (f for f in snapshot.families() if f.metric is catalog.LABEL_OVERFLOW)
    # Two of the places are the configured routes'.
    assert overflow.series["http_route",] == 1000 - config.max_routes + 2


async def hold(config: Config, number: int, then: Callable[[], object]) -> None:
    """Call `then` while so many connections are open."""
    open_now = 0
    all_open, over = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        nonlocal open_now
        open_now += 1
        if open_now == number:
            all_open.set()
        await over.wait()

    held = [
        asyncio.create_task(converse(config, f"/{n % 3}", CONNECT, ACCEPT, wait, GONE))
        for n in range(number)
    ]
    await all_open.wait()
    try:
        then()
    finally:
        over.set()
        await asyncio.gather(*held)


def test_the_series_do_not_depend_on_the_connections(config):
    seen = []

    def look() -> None:
        seen.append(set(series(render(Source(config).take)[0].decode())))

    for number in (3, 30, 1000):
        asyncio.run(hold(config, number, look))
    assert seen[0] == seen[1] == seen[2]


@pytest.mark.slow
def test_what_ten_thousand_connections_cost(config, capsys):
    costs: list[tuple[float, float]] = []

    def look() -> None:
        source = Source(config)
        for _ in range(20):
            began = time.process_time()
            snapshot = source.take()
            taken = time.process_time()
            text, _ = render(lambda s=snapshot: s)
            costs.append((taken - began, time.process_time() - taken))
        assert b'asgi_worker_active_connections{worker="0"} 10000.0' in text

    asyncio.run(hold(config, 10_000, look))
    took = sorted(sum(cost) for cost in costs)
    with capsys.disabled():
        sys.stdout.write(
            f"\n10,000 open connections: collect and render {took[10] * 1e3:.1f} ms of CPU"
            f" (median of 20; {took[0] * 1e3:.1f} to {took[-1] * 1e3:.1f} ms)\n"
        )
