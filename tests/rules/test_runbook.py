"""Each `grep` of the runbook finds what the code prints, and what it says of servers is so."""

from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from grafana.mixin.alerts import ALERTS
from grafana.mixin.alerts.workers import STUCK
from grafana.mixin.runbook import render_runbook
from tests.rules.mixin import ROOT, known_metrics
from tests.servers.harness import SERVERS, eventually, serving
from tests.store.support import config, open_connection, place, start_worker
from ws_lifecycle_metrics import Config
from ws_lifecycle_metrics.protocol import RULES, Severity
from ws_lifecycle_metrics.store.snapshot import Source
from ws_lifecycle_metrics.store.workers import current
from ws_lifecycle_metrics.telemetry import logs
from ws_lifecycle_metrics.watchdog import reports
from ws_lifecycle_metrics.watchdog.stuck import StuckEvent

if TYPE_CHECKING:
    from collections.abc import Callable

OTHERS_WORDS = {
    ("WorkersMissing", "ps -eo pid,ppid,stat,etime,args"),
    ("WorkerDied", "journalctl -k --since -30min"),  # the kernel's
    ("SubscriptionSilent", "journalctl --since -1h -u YOUR-SERVICE"),  # the broker's client's
    ("ServerProtocolViolation", "pip list"),
}
"""What is searched for the words of other programs, by alert."""

COMMANDS = {command for alert in ALERTS for command in alert.runbook.commands}
CONNECTIONS = sorted(c for c in COMMANDS if c.startswith("ws-lifecycle-metrics connections"))

PIPES = {
    (alert.name, *command.split(" | ", 1))
    for alert in ALERTS
    for command in alert.runbook.commands
    if " | grep" in command
}
OURS = sorted(pipe for pipe in PIPES if pipe[:2] not in OTHERS_WORDS)


def slow_loop(_folder: Path) -> None:
    where = ("mine.py:69:hang",)
    reports.log_stall(StuckEvent("loop_blocked", 1.2, "1", stack=where, where=where[0]))
    reports.report([StuckEvent("loop_blocked", 5.1, "1", stack=where, where=where[0])], None)


def orphaned(_folder: Path) -> None:
    event = StuckEvent("orphan_subscription", 6.0, "0", connection=5, http_route="/graphql")
    reports.report([event], None)


def broken_rules(_folder: Path) -> None:
    for rule in RULES.values():
        if rule.severity is not Severity.INFO:
            logs.log_violation(rule, "/chat")


def degraded(folder: Path) -> None:
    full = start_worker(folder, max_connections=0)
    open_connection(full)
    full.close()
    place(folder / "b").parent.mkdir()
    place(folder / "b").write_text("no directory")
    current(config(folder / "b"))
    logs.log_fault(RuntimeError("ours"))
    reports.log_fault(RuntimeError("ours"))


SAID: dict[str, Callable[[Path], None]] = {
    "EventLoopSlow": slow_loop,
    "SubscriptionsOrphaned": orphaned,
    "AppProtocolViolation": broken_rules,
    "StorageDegraded": degraded,
}
"""What makes the records that an entry has people look for in the log of their service."""


@pytest.mark.parametrize(("alert", "source", "search"), OURS)
def test_each_search_finds_what_the_code_prints(
    alert: str,
    source: str,
    search: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if source.startswith("curl"):
        assert finds(search, samples())
        return
    assert source.endswith("-u YOUR-SERVICE")
    monkeypatch.setattr(logs, "_limit", logs.RateLimit())
    SAID[alert](tmp_path)
    # As Python prints them where nobody has set up logging: the bare message.
    lines = [logging.Formatter().format(record).splitlines()[0] for record in caplog.records]
    assert lines
    assert [line for line in lines if not finds(search, line)] == []


def test_what_is_left_to_other_programs_is_still_there() -> None:
    assert {pipe[:2] for pipe in PIPES} >= OTHERS_WORDS
    assert {alert for alert, source, _ in OURS if not source.startswith("curl")} == set(SAID)


def test_the_head_has_what_the_unit_of_the_sidecar_has() -> None:
    unit = (ROOT / "examples" / "systemd" / "ws-lifecycle-metrics.service").read_text()
    settings = dict(
        line.split("=", 1) for line in unit.splitlines() if re.match(r"[A-Z]\w+=", line)
    )
    user, place, path = head()
    assert user == f"runuser -u {settings['User']} -- bash"
    assert place == f"export {settings['Environment']}"
    program = settings["ExecStart"].split()[0]
    assert path == f'export PATH="{Path(program).parent}:$PATH"'
    assert Path(program).name in {command.split()[0] for command in COMMANDS}


@pytest.mark.parametrize("command", CONNECTIONS)
def test_with_the_variables_of_the_head_the_connections_are_found(
    command: str, tmp_path: Path
) -> None:
    worker = start_worker(tmp_path, service="chat")
    open_connection(worker)
    place = head()[1].replace("/run/chat/segments", str(tmp_path))
    bare, told = (shell(script, tmp_path) for script in (command, f"{place}\n{command}"))
    worker.close()
    assert "no open connections" in bare
    assert told.startswith("chat: 1 connection (1 open), 1 worker")


def head() -> list[str]:
    """The lines to begin with."""
    return render_runbook(()).partition("```sh\n")[2].partition("\n```")[0].splitlines()


def shell(script: str, folder: Path) -> str:
    """What a script prints where nothing is set, and the directory by default has nothing."""
    programs = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", script],
        env={"PATH": programs, "WS_LIFECYCLE_DIRECTORY": str(folder / "elsewhere")},
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    return done.stdout


def samples() -> str:
    """The lines of a scrape: the golden one's, and names whose series come with their events."""
    golden = (ROOT / "tests" / "golden" / "metrics.txt").read_text(encoding="utf-8")
    scraped = [line for line in golden.splitlines() if not line.startswith("#")]
    return "\n".join([*scraped, *(f"{name} 1.0" for name in known_metrics())])


def finds(search: str, text: str) -> bool:
    """Whether the search, in a shell, prints anything of the text."""
    done = subprocess.run(
        ["bash", "-c", search],
        input=f"{text}\n",
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.stderr == ""
    return bool(done.stdout)


@pytest.mark.parametrize("alert", ["WorkersMissing", "ServerProtocolViolation"])
@pytest.mark.parametrize("server", ["granian", "uvicorn", "gunicorn", "hypercorn", "daphne"])
def test_every_server_is_searched_for(alert: str, server: str) -> None:
    [searched] = [pipe for pipe in PIPES if pipe[0] == alert and pipe[:2] in OTHERS_WORDS]
    found = subprocess.run(
        ["sh", "-c", searched[2]],
        input=f"{server} 1.0\n",
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert found.returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "option", "outlives"),
    [
        ("uvicorn-websockets", "", True),
        ("gunicorn", "", True),
        ("granian", " --respawn-failed-workers", True),
        ("granian", "", False),
        ("hypercorn", "", False),
    ],
)
def test_the_servers_that_outlive_a_worker_are_those_that_are_named(
    tmp_path: Path, name: str, option: str, outlives: bool
) -> None:
    server = next(server for server in SERVERS if server.name == name)
    program, rest = server.command.split(" ", 1)
    with serving(replace(server, command=f"{program}{option} {rest}"), tmp_path) as running:
        source = Source(Config(service="test", directory=str(running.segments)))

        def alive() -> set[int]:
            return {one.pid for one in source.take().health if one.reason is None}

        ended, other = eventually(lambda: len(found := alive()) == 2 and found, 20)
        os.kill(ended, signal.SIGTERM)
        if outlives:
            eventually(lambda: len(found := alive()) == 2 and ended not in found, 20)
            assert other in alive()
        else:
            eventually(running.exited, 20)
    program = program.title() if program in ("granian", "hypercorn") else program
    [fix] = [step for step in STUCK.runbook.fix if program in step]
    named = f"{program} with `{option.strip()}`" if option else program
    assert named in fix.partition("start another")[0 if outlives else 2]
