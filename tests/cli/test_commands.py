"""The command line, in this process."""

from __future__ import annotations

import asyncio
import json
import os
import re
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result

from tests.exporter.traffic import asynchronous, open_connections
from tests.servers.harness import eventually
from ws_lifecycle_metrics.cli import cli
from ws_lifecycle_metrics.exporter.index import LINKS
from ws_lifecycle_metrics.labels import safe_label
from ws_lifecycle_metrics.protocol import RULES
from ws_lifecycle_metrics.store.snapshot import package_version

if TYPE_CHECKING:
    from collections.abc import Callable

ROUTES = ("/chat/{room}", "/graphql", "/organisations/{organisation}/rooms/{room}/feed", "/hangs!")
README = Path(__file__).parents[2] / "README.md"
HOSTILE = "/a[red]b[/]\x1b[31m\u202e\n\ud800:smile:"
ANSI = re.compile(r"\x1b\[[0-9;]*m")


def run(*arguments: str, columns: int | None = None) -> Result:
    """Run the command; `columns`: as if on a terminal of that width."""
    terminal = {} if columns is None else {"FORCE_COLOR": "1", "COLUMNS": str(columns)}
    env = {"FORCE_COLOR": None, "TTY_COMPATIBLE": None, "COLUMNS": None, **terminal}
    return CliRunner().invoke(cli, arguments, env=env, prog_name="ws-lifecycle-metrics")


async def list_connections(directory: Path, *arguments: str, columns: int | None = None) -> Result:
    place = ("--service", "test", "--directory", str(directory))
    return await asyncio.to_thread(run, "connections", *place, *arguments, columns=columns)


@pytest.mark.parametrize("flag", ["-h", "--help"])
@pytest.mark.parametrize(
    "verb", [(), ("serve",), ("connections",), ("rules",), ("check",), ("doctor",)], ids=str
)
def test_help_is_complete(verb: tuple[str, ...], flag: str) -> None:
    result = run(*verb, flag)
    assert result.exit_code == 0
    assert result.output.startswith(" ".join(("Usage: ws-lifecycle-metrics", *verb, "[OPTIONS]")))
    assert "..." not in result.output.replace("[ARGS]...", "")  # no sentence was cut


def test_the_help_of_the_sidecar_and_the_readme_name_each_of_its_pages() -> None:
    (row,) = re.findall(r"^\| also serves .*$", README.read_text(encoding="utf-8"), re.M)
    for page in LINKS:
        assert re.search(rf"{page}\b", run("serve", "--help").stdout)
        assert f"`{page}`" in row or page == "/metrics"  # which is the other column's, too


def test_the_doctor_asks_where_the_sidecar_listens() -> None:
    said, theirs = (run(verb, "--help").stdout for verb in ("doctor", "serve"))
    for what in ("Address", "Port"):
        assert f"{what} where the sidecar answers." in said
        assert f"{what} to listen on" in theirs
    assert "listen" not in said
    assert "any free one" not in said


def test_version() -> None:
    assert run("--version").output == f"ws-lifecycle-metrics {package_version()}\n"


@asynchronous
async def test_connections_are_a_table_worst_first(tmp_path: Path) -> None:
    async with open_connections(tmp_path, *ROUTES):
        result = await list_connections(tmp_path)
    assert result.exit_code == 0
    head, names, *rows = result.stdout.splitlines()
    assert head == "test: 4 connections (1 closing, 3 open), 1 worker, 1 violation among them"
    assert re.split(r"\s{2,}", names.strip()) == [
        *("worker", "route", "state", "age", "silent for", "waits for"),
        *("received", "bytes", "sent", "bytes", "violations"),
    ]
    cells = [re.split(r"\s{2,}", row.strip()) for row in rows]
    assert cells[0][:3] == ["0", "/hangs!", "closing"]
    assert cells[0][5:] == ["application", "1", "5 B", "2", "15 B", "1"]
    assert {row[1] for row in cells} == set(ROUTES)
    assert all(row[5:] == ["receive", "1", "5 B", "1", "7 B", "0"] for row in cells[1:])


@pytest.mark.parametrize("columns", [80, 100, 200])
@asynchronous
async def test_the_table_fits_the_terminal(tmp_path: Path, columns: int) -> None:
    async with open_connections(tmp_path, *ROUTES, HOSTILE):
        result = await list_connections(tmp_path, columns=columns)
    lines = ANSI.sub("", result.stdout).splitlines()
    assert len(lines) == 2 + len(ROUTES) + 1  # nothing was wrapped
    assert all(len(line) <= columns for line in lines)
    assert len({len(line) for line in lines[1:]}) == 1
    assert lines[2].split()[1] == "/hangs!"
    if columns == 200:
        assert any(ROUTES[2] in line for line in lines)
    else:
        assert not any(ROUTES[2] in line for line in lines)
        assert any("/organi" in line and "…" in line for line in lines)
    assert "application" in result.stdout if columns == 200 else "app " in result.stdout


@pytest.mark.parametrize("columns", [None, 200])
@asynchronous
async def test_a_hostile_route_does_nothing_to_the_terminal(
    tmp_path: Path, columns: int | None
) -> None:
    async with open_connections(tmp_path, HOSTILE):
        result = await list_connections(tmp_path, columns=columns)
    plain = ANSI.sub("", result.stdout) if columns else result.stdout
    assert r"/a[red]b[/]\x1b[31m\u202e\n\ud800:smile:" in plain
    assert plain.replace("\n", "").isprintable()


@asynchronous
async def test_a_limit_says_how_many_are_left_out(tmp_path: Path) -> None:
    async with open_connections(tmp_path, *ROUTES):
        some = await list_connections(tmp_path, "--limit", "1")
        none = await list_connections(tmp_path, "--limit", "0")
        every = await list_connections(tmp_path, "--limit", "4")
    assert some.stdout.splitlines()[-1] == "3 more; --limit 4 shows all"
    assert "/hangs!" in some.stdout
    assert len(none.stdout.splitlines()) == 2
    assert "more" not in every.stdout


@asynchronous
async def test_connections_as_json(tmp_path: Path) -> None:
    async with open_connections(tmp_path, "/hangs!", HOSTILE):
        result = await list_connections(tmp_path, "--json")
        limited = await list_connections(tmp_path, "--json", "--limit", "1")
    found = json.loads(result.stdout)
    assert result.stdout.isascii()
    assert set(found) == {
        *("service", "time", "workers", "stuck_workers", "total", "offset", "limit", "connections")
    }
    assert found["stuck_workers"] == []
    assert found["total"] == len(found["connections"]) == 2
    assert found["connections"][0]["route"] == "/hangs!"
    assert found["connections"][0]["violations"] == 1
    assert set(found["connections"][0]) == {
        *("worker", "pid", "id", "route", "subprotocol", "state", "age", "in_state", "silent"),
        *("waits_for", "received_messages", "received_bytes", "sent_messages", "sent_bytes"),
        *("violations", "stuck", "where", "stack", "subscriptions", "graphql", "close"),
    }
    assert len(json.loads(limited.stdout)["connections"]) == 1


def hang_until(told: Callable[[], object]) -> None:
    """Keep the loop of this thread from running until `told` is true in another one."""
    names: dict[str, Callable[..., object]] = {}
    exec(compile("def hang(wait, over):\n    wait(over)", HOSTILE, "exec"), names)
    with ThreadPoolExecutor(1) as other:
        over = other.submit(eventually, told, 10)
        names["hang"](wait, [over])
        over.result()  # not in that file: pytest cannot show its lines


@asynchronous
async def test_a_worker_that_hangs_is_told_with_its_line(tmp_path: Path) -> None:
    place = ("--service", "test", "--directory", str(tmp_path))
    printed: list[str] = []

    def told() -> bool:
        printed.append(run("connections", *place).stdout)
        printed.append(run("connections", *place, "--json").stdout)
        return ", at " in printed[-2]

    options = {"stuck_loop_blocked": 0.5, "stall_megamiss": 0.2}
    async with open_connections(tmp_path, "/chat", **options):
        hang_until(told)
    *table, line = printed[-2].splitlines()
    assert table[0].startswith("test: 1 connection (1 open), 1 worker (1 stuck), 0 violations")
    where = safe_label(f"{HOSTILE}:2:hang")
    name = f"worker 0 (pid {os.getpid()})"
    assert re.fullmatch(
        rf"{re.escape(name)} is stuck: loop_blocked for [\d.]+s, at {re.escape(where)}", line
    )
    assert json.loads(printed[-1])["stuck_workers"] == [
        {"worker": "0", "pid": os.getpid(), "reason": "loop_blocked", "where": where}
    ]
    hang_until(told)
    assert printed[-2].splitlines()[0] == "test: no open connections, 1 worker (1 stuck)"
    assert printed[-2].splitlines()[1].startswith(f"{name} is stuck: loop_blocked for ")


@asynchronous
async def test_an_empty_service_is_one_line(tmp_path: Path) -> None:
    plain = await list_connections(tmp_path)
    as_json = await list_connections(tmp_path, "--json")
    assert (plain.exit_code, plain.stdout) == (0, "test: no open connections, 0 workers\n")
    assert json.loads(as_json.stdout)["connections"] == []


@asynchronous
async def test_a_service_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    result = await list_connections(tmp_path / "not" / "yet")
    assert (result.exit_code, result.stdout) == (0, "test: no open connections, 0 workers\n")
    assert result.stderr.endswith("not/yet: there is no such directory\n")
    assert list(tmp_path.iterdir()) == []


@asynchronous
async def test_a_service_that_no_worker_has_used_is_told_beside_the_output(tmp_path: Path) -> None:
    async with open_connections(tmp_path, "/", service="uv"):
        plain = await list_connections(tmp_path)
        as_json = await list_connections(tmp_path, "--json")
    assert plain.exit_code == as_json.exit_code == 0
    said = f"no worker has used the service 'test' in {tmp_path}; there are: uv\n"
    assert plain.stderr == as_json.stderr == said
    assert json.loads(as_json.stdout)["workers"] == 0
    assert (await list_connections(tmp_path, "--service", "uv")).stderr == ""


def test_a_directory_that_cannot_be_used_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "test").mkdir()
    (tmp_path / "test").chmod(0o777)
    result = run("connections", "--service", "test", "--directory", str(tmp_path))
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert "mode 0777 lets others write" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("serve", "--port", "x"), "--port: 'x' is not a whole number"),
        (("serve", "--port", "99999"), "port=99999"),
        (("serve", "--header-timeout", "soon"), "--header-timeout: 'soon'"),
        (("serve", "--service", "../x"), "service='../x'"),
        (("connections", "--service", "a/b"), "service='a/b'"),
        (("serve", "--host", ""), "host=''"),
        (("doctor", "--port", "0"), "port=0: no sidecar answers there"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_bad_value_is_one_line(arguments: tuple[str, ...], named: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith("Error: ")
    assert named in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_bad_environment_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WS_LIFECYCLE_PORT", "tcp://10.0.0.1:80")
    result = run("serve")
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert "WS_LIFECYCLE_PORT" in result.stderr


@pytest.mark.parametrize("arguments", [("nope",), ("serve", "--nope"), ("connections", "x")])
def test_wrong_usage_exits_with_2(arguments: tuple[str, ...]) -> None:
    assert run(*arguments).exit_code == 2


def test_rules_are_all_listed() -> None:
    head, *rows = run("rules").stdout.splitlines()
    assert head.split() == ["id", "party", "severity", "meaning"]
    listed = [re.split(r"\s{2,}", row) for row in rows]
    assert listed == [[r.id, str(r.party), str(r.severity), r.meaning] for r in RULES.values()]


@pytest.mark.parametrize("columns", [80, 200])
def test_the_rules_fit_the_terminal(columns: int) -> None:
    lines = ANSI.sub("", run("rules", columns=columns).stdout).splitlines()
    assert all(len(line) <= columns for line in lines)
    assert len([line for line in lines if line.split()[0] in RULES]) == len(RULES)


def test_rules_as_json() -> None:
    found = json.loads(run("rules", "--json").stdout)["rules"]
    assert [rule["id"] for rule in found] == list(RULES)
    assert set(found[0]) == {"id", "party", "severity", "meaning", "spec", "hint"}


@pytest.mark.parametrize("rule", RULES.values(), ids=lambda rule: rule.id)
def test_a_rule_is_explained(rule: object) -> None:
    known = RULES[rule.id]  # type: ignore[attr-defined]  # parametrize has no types
    result = run("rules", known.id)
    assert result.exit_code == 0
    for text in (known.id, known.party, known.severity, known.meaning, known.spec, known.hint):
        assert text in result.stdout
    assert json.loads(run("rules", known.id, "--json").stdout)["hint"] == known.hint


def test_an_unknown_rule_names_near_ones() -> None:
    result = run("rules", "app.send-after-closed")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "app.send-after-close" in result.stderr
    assert result.stderr.count("\n") == 1
    assert run("rules", "\x1b[31m").stderr == (
        "Error: no rule is called '\\x1b[31m'; without ID those of the protocol are listed\n"
    )
