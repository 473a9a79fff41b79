"""From a stuck worker to somebody's pager, with the rules and dashboards as they are shipped."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

import pytest

from tests.rules.mixin import DASHBOARDS, filled, panels
from tests.servers.harness import eventually
from tests.stack.chain import INTERVAL, JOB
from tests.stack.conftest import TIMING

if TYPE_CHECKING:
    from tests.stack.conftest import Scene

pytestmark = pytest.mark.stack

# Queries that rightly have no series here: there is no GraphQL, and not everything goes wrong.
NO_GRAPHQL = "websocket-graphql"
SILENT_WHEN_WELL = {
    "Closes by the application and by the server A": "only the clients close here",
    "Lost with their worker A": "no worker dies here",
}


def test_targets_are_up_and_the_catalogue_arrives(scene: Scene) -> None:
    chain = scene.chain
    eventually(lambda: chain.value(f'up{{job="{JOB}"}}') == 1, 30, "the first scrape")
    eventually(lambda: chain.value("asgi_workers_reporting") == 2, 30, "two workers")


def test_stuck_worker_reaches_the_pager_in_time(scene: Scene) -> None:
    """The bar: threshold + for + 15 s from the moment at which the worker hangs."""
    chain, pair = scene.chain, scene.pair
    pid = next(iter(pair.clients))
    worker = pair.watcher.worker_of(pid)
    assert worker is not None
    began = time.time()
    release = pair.block(pair.clients[pid], "sleep")
    waited = 30
    limit = TIMING.stuck + waited + 15
    told = eventually(
        lambda: chain.webhook.firing("WebSocketWorkerStuck", worker=worker), limit + 30, "the alert"
    )
    when, receiver, alert = told
    took = when - began
    print(f"from the stuck worker to the webhook: {took:.1f} s, at most {limit:.0f} s")  # noqa: T201  # a figure for those who ask
    assert took <= limit
    assert receiver == "pager"
    assert alert["labels"]["reason"] == "loop_blocked"
    assert alert["annotations"]["runbook_url"].endswith("#websocketworkerstuck")
    assert JOB in alert["annotations"]["description"]
    release()


def test_alerts_reach_victoria_metrics_by_remote_write(scene: Scene) -> None:
    chain = scene.chain

    def arrived() -> bool:
        names = {
            series["metric"]["__name__"]
            for series in chain.query('{__name__=~"asgi_workers_reporting|ALERTS"}', chain.victoria)
        }
        return names == {"asgi_workers_reporting", "ALERTS"}

    eventually(arrived, 30, "remote-write")


def _without_series(scene: Scene) -> dict[str, str]:
    """Queries of dashboards that give no series, with what Prometheus says."""
    found = {}
    for path in DASHBOARDS:
        if path.stem == NO_GRAPHQL:
            continue
        for panel in panels(path):
            for target in panel.get("targets", ()):
                name = f"{panel['title']} {target['refId']}"
                if not scene.chain.query(filled(target["expr"])) and name not in SILENT_WHEN_WELL:
                    found[name] = target["expr"]
    return found


def test_every_query_of_the_dashboards_has_series(scene: Scene) -> None:
    """While the worker hangs, and a connection does not end, each panel has something to show."""
    eventually(
        lambda: not _without_series(scene),
        8 * INTERVAL,
        f"series for {list(_without_series(scene))}",
    )


def test_queries_about_graphql_are_valid_where_there_is_none(scene: Scene) -> None:
    path = next(path for path in DASHBOARDS if path.stem == NO_GRAPHQL)
    for panel in panels(path):
        for target in panel.get("targets", ()):
            scene.chain.query(filled(target["expr"]))


def test_books_balance(scene: Scene) -> None:
    path = next(path for path in DASHBOARDS if path.stem == "websocket-overview")
    (panel,) = (p for p in panels(path) if p["title"] == "Connections unaccounted for")
    expr = filled(panel["targets"][0]["expr"])
    eventually(lambda: scene.chain.value(expr) == 0, 60, "balanced books")


def test_a_stopped_worker_is_told_with_its_reason(scene: Scene) -> None:
    pid = list(scene.pair.clients)[1]
    os.kill(pid, signal.SIGSTOP)
    try:
        eventually(
            lambda: scene.chain.webhook.firing("WebSocketWorkerStuck", reason="stopped"),
            30 + 30,
            "the alert",
        )
    finally:
        os.kill(pid, signal.SIGCONT)
