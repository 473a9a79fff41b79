"""How many series there are, which of them wait for their first event, and that none goes."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.host import (
    BAR,
    MIXED,
    ROUTES,
    SUBSCRIPTIONS,
    WORKERS,
    Worker,
    operate,
    scrape,
    series,
)
from tests.support import ACCEPT, CONNECT, DISCONNECT, scope
from ws_lifecycle_metrics import Config, LifecycleMiddleware, catalog
from ws_lifecycle_metrics.store import workers
from ws_lifecycle_metrics.store.snapshot import Source
from ws_lifecycle_metrics.telemetry.prometheus import render

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ROOT = Path(__file__).parents[2]
COUNTED = ("_total", "_bucket", "_count", "_sum")

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture
def config(tmp_path: Path) -> Iterator[Config]:
    yield Config(service="series", directory=str(tmp_path), route=lambda scope: scope["path"])
    end_workers()


def end_workers() -> None:
    """As at the end of a process: each worker's counts go to the archive."""
    workers._close_all()
    workers._here.by_place.clear()


def samples(config: Config) -> Samples:
    text = render(Source(config).take)[0].decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def counted(found: Samples) -> Samples:
    return {key: value for key, value in found.items() if key[0].endswith(COUNTED)}


def labels_of(found: Samples, name: str) -> set[frozenset[tuple[str, str]]]:
    return {labels for have, labels in found if have == name}


def converse(config: Config, *steps: Any, path: str = "/chat") -> None:
    """Play a conversation: what is a mapping with a name of the server's is received."""
    events = [s for s in steps if isinstance(s, dict) and s in (CONNECT, DISCONNECT)]

    async def receive() -> Any:
        return events.pop(0)

    async def send(_message: Any) -> None:
        pass

    async def app(_scope: Any, receive: Any, send: Any) -> None:
        for step in steps:
            if callable(step):
                await step()
            elif step in (CONNECT, DISCONNECT):
                await receive()
            else:
                await send(step)

    asyncio.run(LifecycleMiddleware(app, config=config)(scope(path=path), receive, send))


def operations(**types: int) -> Any:
    return lambda: operate(types)


def test_a_host_keeps_the_bar(tmp_path: Path) -> None:
    text = scrape(tmp_path, MIXED)
    found = series(text)
    names = {
        label for key in ("http_route", "worker") for label in re.findall(f'{key}="(.*?)"', text)
    }
    assert names == {*ROUTES, "other", *map(str, range(WORKERS))}
    assert len(set(re.findall('graphql_operation_name="(.*?)"', text))) == 10
    assert sum(found.values()) <= BAR, found.most_common(10)


@pytest.mark.parametrize("operations", [MIXED, SUBSCRIPTIONS, {}], ids=["mixed", "all", "none"])
def test_the_figures_of_the_documentation_are_true(
    operations: Mapping[str, int], tmp_path: Path
) -> None:
    page = (ROOT / "docs" / "fleet.md").read_text(encoding="utf-8")
    row = {
        str(MIXED): "series",
        str(SUBSCRIPTIONS): "series, were all operations subscriptions",
        "{}": "series without GraphQL",
    }[str(operations)]
    told = re.search(rf"^\| {row} \| (\d+) \|", page, re.M)
    assert told, row
    assert int(told[1]) == sum(series(scrape(tmp_path, operations)).values())


def test_what_hardly_ever_happens_appears_with_its_first_event(config: Config) -> None:
    converse(config, CONNECT, ACCEPT, DISCONNECT)
    before = samples(config)
    converse(config, CONNECT, ACCEPT, {"type": "websocket.close", "code": 4401})
    converse(config, CONNECT, ACCEPT)  # and returns, which is a warning
    new = {
        (name, *sorted(value for _, value in labels)): value
        for (name, labels), value in counted(samples(config)).items()
        if (name, labels) not in before
    }
    violations = catalog.PROTOCOL_VIOLATIONS.prometheus
    assert new == {
        (catalog.CLOSES.prometheus, "/chat", "4401", "app"): 1,
        (violations, "/chat", "app", "app.return-without-close"): 1,
    }


def test_an_operation_has_the_series_of_its_types(config: Config) -> None:
    converse(config, CONNECT, ACCEPT, operations(query=1, subscription=1), DISCONNECT)
    found = samples(config)
    types = {
        dict(labels)["graphql_operation_name"]: dict(labels)["graphql_operation_type"]
        for labels in labels_of(found, catalog.GRAPHQL_DURATION.prometheus + "_count")
    }
    assert types == {"Query0": "query", "Subscription0": "subscription"}
    for metric in (catalog.SUBSCRIPTION_ERRORS, catalog.SUBSCRIPTION_ENDS):
        names = {
            dict(labels)["graphql_operation_name"] for labels in labels_of(found, metric.prometheus)
        }
        assert names == {"Subscription0"}
    ends = labels_of(found, catalog.SUBSCRIPTION_ENDS.prometheus)
    assert {dict(labels)["reason"] for labels in ends} == set(catalog.END_REASONS)


def test_without_graphql_there_are_no_series_of_it(config: Config) -> None:
    converse(config, CONNECT, ACCEPT, DISCONNECT)
    names = {name for name, _ in samples(config) if name.startswith("graphql")}
    assert names == {catalog.SUBSCRIPTION_ORPHANS.prometheus}


def test_no_series_of_a_counter_goes_away_and_none_falls(config: Config, tmp_path: Path) -> None:
    """Whatever comes: other operations, rare codes, workers that end and that come again."""
    seen: Samples = {}

    def look() -> None:
        now = counted(samples(config))
        assert sorted(map(str, seen.keys() - now.keys())) == []
        assert {key: (value, now[key]) for key, value in seen.items() if now[key] < value} == {}
        seen.update(now)

    second = Worker(config, {"subscription": 1})
    look()
    converse(config, CONNECT, ACCEPT, operations(query=1), DISCONNECT)
    look()
    second.start()
    assert second.ready.wait(30)
    look()
    converse(config, CONNECT, ACCEPT, operations(subscription=2, mutation=1), DISCONNECT)
    converse(config, CONNECT, ACCEPT, {"type": "websocket.close", "code": 4401}, path="/rare")
    look()
    second.leave()
    end_workers()
    look()
    assert {dict(labels)["worker"] for name, labels in seen if "stalls" in name} == {"0", "1"}
    converse(config, CONNECT, path="/again")
    look()
    end_workers()
    look()
