"""Where there is nothing to show, or less than expected, panels are empty and queries valid."""

from __future__ import annotations

import subprocess
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from tests.rules.mixin import DASHBOARDS, filled, panels
from tests.servers.harness import HOST, eventually
from tests.stack.chain import get, missing
from tests.stack.conftest import skip_or_fail
from ws_lifecycle_metrics.conformance.process import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.stack

NOW = 1_767_268_800
# Metrics of a proxy or relabelling that drops what it should keep; and one worker alone.
POOR = f"""\
# TYPE asgi_worker_stuck gauge
asgi_worker_stuck 1 {NOW}
# TYPE asgi_exporter_time_seconds gauge
asgi_exporter_time_seconds{{job="ws",instance="h1"}} {NOW} {NOW}
# TYPE asgi_worker_heartbeat_timestamp_seconds gauge
asgi_worker_heartbeat_timestamp_seconds{{job="ws",instance="h1",worker="0"}} {NOW - 1} {NOW}
# TYPE asgi_workers_reporting gauge
asgi_workers_reporting{{job="ws",instance="h1"}} 1 {NOW}
# TYPE websocket_server_stuck_connections gauge
websocket_server_stuck_connections{{job="ws",instance="h1"}} 2 {NOW}
# EOF
"""
QUERIES = [
    (path.stem, panel["title"], target["expr"])
    for path in DASHBOARDS
    for panel in panels(path)
    for target in panel.get("targets", ())
]


def serve(folder: Path) -> Iterator[str]:
    """Run a Prometheus over a folder's blocks, without any target."""
    if lacking := missing():
        skip_or_fail(lacking)
    (folder / "prometheus.yml").write_text("{}\n")
    port = free_port()
    command = [
        *("prometheus", f"--config.file={folder}/prometheus.yml"),
        *(f"--storage.tsdb.path={folder}/tsdb", "--storage.tsdb.retention.time=100y"),
        *(f"--web.listen-address={HOST}:{port}", "--log.level=error"),
    ]
    process = subprocess.Popen(command)
    base = f"http://{HOST}:{port}"

    def ready() -> bool:
        with suppress(OSError):
            get(f"{base}/-/ready")
            return True
        return False

    try:
        eventually(ready, 60, "prometheus")
        yield base
    finally:
        process.terminate()
        process.wait(timeout=30)


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    yield from serve(tmp_path_factory.mktemp("empty"))


@pytest.fixture(scope="module")
def poor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("poor")
    (folder / "poor.om").write_text(POOR)
    command = ["promtool", "tsdb", "create-blocks-from", "openmetrics", "poor.om", "tsdb"]
    subprocess.run(command, cwd=folder, check=True, timeout=60, stdout=subprocess.DEVNULL)
    yield from serve(folder)


def ask(base: str, expr: str) -> list[dict]:
    answer = get(f"{base}/api/v1/query", query=filled(expr), time=NOW)
    assert answer["status"] == "success"
    return answer["data"]["result"]


def test_an_empty_prometheus_has_no_data_for_any_panel(empty: str) -> None:
    shown = {title for _, title, expr in QUERIES if ask(empty, expr)}
    assert shown == set()


def test_missing_labels_are_no_errors(poor: str) -> None:
    shown = {(board, title) for board, title, expr in QUERIES if ask(poor, expr)}
    assert ("websocket-workers", "Age of the last heartbeat") in shown
    assert ("websocket-overview", "Workers beating, and usual") in shown
    assert not {title for board, title in shown if board == "websocket-graphql"}
    # What lost its labels matches no job and no route, and is shown nowhere.
    assert ("websocket-overview", "Workers stuck") not in shown
    assert ("websocket-overview", "Connections stuck") not in shown
