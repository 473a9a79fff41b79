"""Server mode on real servers: what is known to be wrong is named, and what is right is not."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import pytest

from ws_lifecycle_metrics.conformance import run
from ws_lifecycle_metrics.conformance.check import run_servers
from ws_lifecycle_metrics.conformance.matrix import verdicts, write
from ws_lifecycle_metrics.conformance.result import Report
from ws_lifecycle_metrics.conformance.run import Chosen, run_server
from ws_lifecycle_metrics.conformance.scenarios import SCENARIOS
from ws_lifecycle_metrics.conformance.script import closed, do, expect, opened
from ws_lifecycle_metrics.conformance.servers import BY_NAME, KINDS

CLEAN = "uvicorn-websockets-sansio"
SAMPLE = (
    *("accept", "reject", "subprotocol-chosen", "denial", "echo-text", "fragments", "ping"),
    *("invalid-utf8", "client-closes-4242", "client-resets", "close-4999", "close-then-receive"),
    *("return-without-close", "raise-after-accept", "graphql-transport-ws-session"),
)
KNOWN = {
    "hypercorn": {
        "client-closes-4242": ["violates", "server.disconnect-code-wrong"],
        "sends-after-reset": ["unsupported"],  # it announces 2.3, which demands no exception
        "close-reason": ["conforms"],
    },
    "daphne": {
        "return-without-close": ["hangs", "server.socket-left-open"],
        "denial": ["unsupported"],
        "accept-headers": ["unsupported"],  # it announces no version of the specification
    },
    "granian": {
        "close-with-pending-receive": [
            "hangs",
            "server.send-never-returns",
            "server.socket-left-open",
        ]
    },
}


def chosen(name: str) -> Chosen:
    return Chosen(kind=BY_NAME[name], version=BY_NAME[name].installed_version())


def judged(name: str, *ids: str, settle: float = 5.0) -> dict[str, list[str]]:
    result = run_server(chosen(name), [replace(SCENARIOS[id], settle=settle) for id in ids])
    assert not result.failed
    return verdicts(Report(target="", servers=(result,)))[name]


def test_a_server_that_conforms_is_clean():
    assert judged(CLEAN, *SAMPLE) == {id: ["conforms"] for id in SAMPLE}


@pytest.mark.parametrize(
    "name", ["hypercorn", *(pytest.param(n, marks=pytest.mark.slow) for n in ("granian", "daphne"))]
)
def test_known_faults_are_named(name, monkeypatch):
    monkeypatch.setattr("ws_lifecycle_metrics.conformance.client.STEP_SECONDS", 2.0)
    assert judged(name, *KNOWN[name], settle=2.0) == KNOWN[name]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("client", "rules"),
    [
        ((opened(), expect("never sent")), ("server.message-lost",)),
        ((opened(), closed(4000)), ("server.socket-left-open",)),
        ((do("open", status=403),), ("server.status-wrong",)),
        ((opened(chosen="another"),), ("server.handshake-failed",)),
    ],
    ids=["message", "close", "status", "subprotocol"],
)
def test_a_demand_that_is_not_met_is_a_finding(client, rules, monkeypatch):
    monkeypatch.setattr("ws_lifecycle_metrics.conformance.client.STEP_SECONDS", 0.5)
    scenario = replace(SCENARIOS["accept"], client=client, settle=0.5)
    result = run_server(chosen(CLEAN), [scenario]).results[0]
    assert result.findings == rules
    assert any(line.rules == rules for line in result.timeline)


def test_a_server_that_does_not_start_is_named():
    kind = replace(BY_NAME[CLEAN], arguments="uvicorn --no-such-option {host} {port} {app}")
    result = run_server(Chosen(kind=kind, version="0"), [SCENARIOS["accept"]])
    assert "No such option" in result.failed
    assert not result.results


def test_a_port_that_is_taken_is_tried_again_then_named(monkeypatch):
    import socket

    from ws_lifecycle_metrics.conformance import process

    with socket.socket() as taken:
        taken.bind((process.HOST, 0))
        taken.listen()
        monkeypatch.setattr(process, "free_port", lambda: taken.getsockname()[1])
        monkeypatch.setattr(process.Running, "answers", lambda *_: False)
        result = run_server(chosen(CLEAN), [SCENARIOS["accept"]])
    assert "in use" in result.failed


def test_no_process_stays(monkeypatch):
    started = []
    start = run.start
    monkeypatch.setattr(run, "start", lambda *a: started.append(start(*a)) or started[-1])
    judged(CLEAN, "accept", "client-leaves-during-handshake")
    assert len(started) == 2  # one shared, one fresh
    assert all(running.exited() and not running.members() for running in started)


def test_the_matrix_is_a_page():
    report = Report(target="", servers=(run_server(chosen(CLEAN), [SCENARIOS["accept"]]),))
    page = "\n".join(write(report, "2026-01-01"))
    assert f"| {CLEAN} |" in page
    assert "| [accept](#accept) | \u2713 |" in page
    assert all(f'id="{id}"' in page for id in SCENARIOS)


@pytest.mark.matrix
def test_the_whole_matrix_is_judged_in_time():
    began = time.monotonic()
    servers = [chosen(kind.name) for kind in KINDS if not kind.missing()]
    runs = run_servers(servers, list(SCENARIOS.values()))
    assert not [run.failed for run in runs if run.failed]
    report = Report(target="", servers=tuple(runs))
    assert not [result for result in report.results if result.unclear]
    assert json.dumps(verdicts(report))
    assert time.monotonic() - began < 20 * 60
