"""The verbs `check` and `doctor`: what they take, print and return."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tests.servers.harness import eventually
from ws_lifecycle_metrics.cli import cli
from ws_lifecycle_metrics.cli.check import _bar
from ws_lifecycle_metrics.conformance import choose, venvs
from ws_lifecycle_metrics.conformance import run as run_module
from ws_lifecycle_metrics.conformance.check import check_import
from ws_lifecycle_metrics.conformance.formats import FORMATS
from ws_lifecycle_metrics.conformance.result import Line, Report, ServerRun
from ws_lifecycle_metrics.conformance.result import Result as Outcome
from ws_lifecycle_metrics.conformance.run import Chosen, Stopped, not_begun, run_server
from ws_lifecycle_metrics.conformance.scenarios import SCENARIOS
from ws_lifecycle_metrics.conformance.servers import BY_NAME, KINDS, ServerKind

SERVER = ("--server", "uvicorn-websockets-sansio")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments, prog_name="ws-lifecycle-metrics")


def test_clean_is_zero() -> None:
    result = run("check", "tests.conformance.apps:echo", *SERVER, "--scenario", "text")
    assert result.exit_code == 0, result.output
    first, last = result.stdout.splitlines()
    assert ": 1 scenario in " in first
    assert last == "clean"


@pytest.mark.slow
@pytest.mark.parametrize("server", ["uvicorn-websockets-sansio", "hypercorn"])
@pytest.mark.parametrize("call", [("make_echo", "--factory"), ("make_echo()",)], ids=" ".join)
def test_an_application_that_a_factory_makes_is_tried(server: str, call: tuple[str, ...]) -> None:
    name, *flags = call
    target = (f"tests.conformance.apps:{name}", *flags)
    result = run("check", *target, "--server", server, "--scenario", "text")
    assert result.exit_code == 0, result.output


@pytest.mark.slow
def test_an_application_need_not_speak_http() -> None:
    result = run("check", "tests.conformance.apps:websockets_alone", *SERVER, "--scenario", "text")
    assert result.exit_code == 0, result.output


def test_findings_are_one_and_stand_in_the_timeline() -> None:
    result = run("check", "tests.conformance.apps:raising", *SERVER, "--scenario", "text")
    assert result.exit_code == 1
    assert "raised error=ValueError\n             ^ error: the application broke app.exc" in (
        result.stdout
    )
    assert "secret" not in result.output
    assert result.stdout.splitlines()[-1] == "1 finding: 1 of the application, 0 of servers"


def test_a_rule_that_only_a_check_sees_is_explained_and_suggested() -> None:
    assert "id:       app.never-ends\n" in run("rules", "app.never-ends").stdout
    assert "did you mean app.never-ends" in run("rules", "never-ends").stderr


@pytest.mark.slow
def test_a_rule_can_be_suppressed() -> None:
    arguments = ("check", "tests.conformance.apps:raising", *SERVER, "--scenario", "text")
    assert run(*arguments, "--ignore", "app.exception").exit_code == 0


def test_servers_are_judged_without_a_target() -> None:
    result = run("check", *SERVER, "--scenario", "send-both-payloads", "--format", "json")
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    found = report["servers"][0]["results"][0]
    assert found["verdict"] == "violates"
    assert found["findings"][0]["party"] == "server"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("no_such_module:app",), "cannot import no_such_module:app: ModuleNotFoundError"),
        (("tests.conformance.apps:nothing",), "has no attribute 'nothing'"),
        (("tests.conformance.apps:time",), "it is not callable"),
        (("tests.conformance.apps:make_echo",), "it may make the application: add --factory"),
        (("tests.conformance.apps:make_late", "--factory"), "it is not callable"),
        (("tests.conformance.apps:echo", "--header", "x"), "accepted is 'Name: value'"),
        (("--scenario", "acept"), "no scenario is called 'acept'; did you mean accept"),
        (("--scenario", "zzz"), "no scenario is called 'zzz'; known are accept, "),
        (("--scenario", "transport"), "did you mean graphql-transport-ws-"),
        (("--ignore", "app.nope"), "no rule is called 'app.nope'"),
        (("--ignore", "zzz"), "'zzz'; 'ws-lifecycle-metrics rules' lists those of the protocol"),
        (("tests.conformance.apps:echo", "--path", "text/a"), "'text/a': a path begins with '/'"),
        (("tests.conformance.apps:echo", "--path", "/\u65e5"), "percent-encode what is not ASCII"),
        (("tests.conformance.apps:echo", "--path", "/a b"), "--path '/a b': percent-encode"),
        (("tests.conformance.apps:echo", "--path", "/a\nb"), "--path '/a\\nb': percent-encode"),
        (("tests.conformance.apps:echo", "--subprotocol", "\u65e5"), "ASCII without blanks"),
        (("tests.conformance.apps:echo", "--subprotocol", "a b"), "ASCII without blanks"),
        (("tests.conformance.apps:echo", "--query", "{ a }"), "--query needs a --subprotocol of"),
        (("--output", "/no/such/place", "--scenario", "accept"), "cannot write /no/such/place"),
    ],
    ids=[
        *(
            "module",
            "attribute",
            "callable",
            "factory",
            "no-factory",
            "header",
            "scenario",
            "no-scenario",
            "part-scenario",
        ),
        *("rule", "no-rule", "path"),
        *("path-ascii", "path-blank", "path-line", "subprotocol", "subprotocol-blank"),
        *("query", "output"),
    ],
)
def test_bad_input_is_one_line_and_two(arguments: tuple[str, ...], line: str) -> None:
    result = run("check", *arguments, *SERVER)
    assert result.exit_code == 2
    assert line in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--path", "/chat"), "--path"),
        (("--path", "/"), "--path"),
        (("--subprotocol", "graphql-ws", "--query", "{ a }"), "--subprotocol, --query"),
        (("--header", "A: b", "--path", "/chat"), "--path, --header"),
        (("--factory",), "--factory"),
    ],
    ids=["path", "path as by default", "GraphQL", "several", "factory"],
)
def test_what_only_an_application_needs_is_refused_without_one(
    arguments: tuple[str, ...], named: str
) -> None:
    result = run("check", *arguments, *SERVER, "--scenario", "accept")
    assert result.exit_code == 2
    line = f"Error: without a TARGET, {named} would do nothing; name a module:app\n"
    assert result.stderr == line


def test_a_wrong_path_is_two() -> None:
    result = run("check", "examples.channels.app:app", "--path", "/reject", *SERVER)
    assert result.exit_code == 2
    assert "could not run: /reject was refused (403); is --path right?" in result.stdout


def test_a_cache_that_cannot_be_written_is_two(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    result = run("check", "--server", "granian==2.3.1")
    assert result.exit_code == 2
    assert f"no environment can be made in {tmp_path}/file/ws-lifecycle-metrics" in result.stderr
    assert "XDG_CACHE_HOME" in result.stderr


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become a user that nobody knows")
def test_a_user_without_a_home_is_told_what_to_set() -> None:
    code = (
        "import os, pwd, sysconfig\n"
        "sysconfig.get_path('purelib')  # it imports, which the other user may not\n"
        "from ws_lifecycle_metrics.conformance.venvs import environment\n"
        "os.setuid(54321); os.environ.pop('HOME', 0); os.environ.pop('XDG_CACHE_HOME', 0)\n"
        "environment(['granian==2.3.1'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False
    )
    said = "InstallError: this user has no home directory; set XDG_CACHE_HOME\n"
    assert done.stderr.endswith(said)


def test_a_bad_option_in_the_environment_is_one_line_of_the_doctors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WS_LIFECYCLE_POLICY", "shout")
    result = run("doctor")
    assert result.exit_code == 2
    assert result.stderr == "Error: policy='shout': accepted are observe, shield, strict\n"


@pytest.mark.parametrize(
    ("server", "line"),
    [
        ("uvicron", "no server is called 'uvicron'; did you mean uvicorn?"),
        ("granian==", "no version stands after '=='"),
        ("granian==2.0;rm", "no version stands after '=='"),
    ],
)
def test_an_unknown_server_is_two(server: str, line: str) -> None:
    result = run("check", "--server", server)
    assert result.exit_code == 2
    assert line in result.stderr


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("import sys; sys.exit(0)", "it ends the process, with exit code 0"),
        ("import os; os._exit(0)", "it ends the process, with exit code 0"),
        ("import sys; sys.exit('no settings')", "no settings"),
        ("import sys; sys.exit(3)", "exit code 3"),
        ("raise ValueError('2 errors\\nurl\\n  missing\\n')", "ValueError: 2 errors"),
        ("try: 1 / 0\nexcept ValueError: pass", "ZeroDivisionError: division by zero"),
        ("try: 1 / 0\nexcept Exception: raise KeyError('x')", "KeyError: 'x'"),
        ("raise ValueError('\\x1b[2J')", "ValueError: \\x1b[2J"),
        ("def", "SyntaxError: invalid syntax"),
    ],
    ids=[
        *("exit 0", "_exit 0", "exit with a text", "exit 3", "lines", "one line", "chained"),
        *("escapes", "syntax"),
    ],
)
def test_an_application_that_cannot_be_imported_is_named_with_the_reason(
    source: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_app.py").write_text(source)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    result = run("check", "broken_app:app", *SERVER)
    assert result.exit_code == 2
    assert result.stderr == f"Error: cannot import broken_app:app: {why}\n"


def test_what_an_application_prints_and_takes_is_no_failure_of_its_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = "import sys; print('hello', end=''); sys.stdout = None\n"
    source += "from tests.conformance.apps import echo as app"
    (tmp_path / "odd_app.py").write_text(source)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    check_import(sys.executable, "odd_app:app")


@pytest.mark.parametrize("place", ["no/report", "a directory", "read-only"])
def test_a_report_that_cannot_be_written_is_told_before_the_work(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a directory").mkdir()
    started = []
    monkeypatch.setattr(run_module, "start", lambda *_: started.append(1))
    output = Path("/proc/version") if place == "read-only" else tmp_path / place
    result = run("check", *SERVER, "--scenario", "accept", "--output", str(output))
    assert result.exit_code == 2
    assert f"cannot write {output}: " in result.stderr
    assert not started


@pytest.mark.parametrize(
    "mistyped",
    [
        ("--scenario", "nope"),
        ("some:app", "--scenario", "nope"),
        ("some:app", "--path", "nope"),
        ("some:app", "--header", "nope"),
        ("some:app", "--query", "{ nope }"),
        ("--ignore", "nope"),
    ],
    ids=" ".join,
)
def test_what_is_mistyped_is_told_before_an_environment_is_made(
    mistyped: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[list[str]] = []
    monkeypatch.setattr(choose, "environment", made.append)
    result = run("check", "--server", "granian==2.3.1", *mistyped)
    assert result.exit_code == 2
    assert "nope" in result.stderr or "--query needs" in result.stderr
    assert "preparing" not in result.stderr
    assert not made


@pytest.mark.slow
def test_a_report_that_is_there_stays_until_there_is_another(tmp_path: Path) -> None:
    output = tmp_path / "report"
    assert run("check", "nothing_here:app", "--output", str(output)).exit_code == 2
    assert not output.exists()
    output.write_text("the last one")
    assert run("check", "nothing_here:app", "--output", str(output)).exit_code == 2
    assert output.read_text() == "the last one"
    target = ("tests.conformance.apps:echo", *SERVER, "--scenario", "text")
    assert run("check", *target, "--output", str(output)).exit_code == 0
    assert output.read_text().endswith("\nclean\n")


@pytest.mark.slow
def test_a_report_is_utf_8_in_every_locale(tmp_path: Path) -> None:
    output = tmp_path / "report"
    command = [sys.executable, "-m", "ws_lifecycle_metrics", "check", *SERVER]
    command += ["tests.conformance.apps:talking_and_raising", "--scenario", "text"]
    env = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [*command, "--output", str(output)], capture_output=True, env=env, check=False, timeout=60
    )
    assert done.returncode == 1, done.stderr
    assert "\u2026 " in output.read_text(encoding="utf-8")


def test_a_server_that_is_not_installed_is_skipped_with_the_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    absent = ServerKind(
        name="granian", arguments="x", modules=("not_there",), packages=("granian",)
    )
    monkeypatch.setitem(choose.BY_NAME, "granian", absent)
    result = run("check", *SERVER, "--server", "granian", "--scenario", "accept")
    assert result.exit_code == 0
    assert "skipped: not_there not installed; pip install granian" in result.stdout
    alone = run("check", "--server", "granian")
    assert alone.exit_code == 2
    assert "pip install granian" in alone.stderr


def test_what_would_help_can_be_pasted_into_a_shell() -> None:
    kind = ServerKind(name="x", arguments="", modules=("not_there",), packages=("x>=25", "y"))
    assert kind.missing() == "not_there not installed; pip install 'x>=25' y"


def test_a_version_that_does_not_exist_is_skipped_with_pips_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    failed = subprocess.CompletedProcess([], 1, "", "noise\nERROR: No matching distribution\n")
    monkeypatch.setattr(venvs.subprocess, "run", lambda *a, **k: failed)
    monkeypatch.setattr(venvs, "_host_pip", lambda: ["pip"])
    result = run("check", "--server", "uvicorn==99")
    assert result.exit_code == 2
    assert result.stderr.count("ERROR: No matching distribution") == 1
    assert "(uvicorn-websockets, uvicorn-websockets-sansio, uvicorn-wsproto: E" in result.stderr
    assert not list(tmp_path.rglob("pyvenv.cfg"))  # nothing half-made is kept


def test_uvicorn_stands_for_its_three() -> None:
    chosen, skipped = choose.choose(["uvicorn"])
    assert [one.name for one in chosen] == [k.name for k in KINDS if k.name[:7] == "uvicorn"]
    assert not skipped


@pytest.mark.slow
def test_a_version_of_its_own_is_installed_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    arguments = ("check", "--server", "hypercorn==0.17.3", "--scenario", "echo-text")
    first = run(*arguments)
    assert first.exit_code == 0, first.output
    assert "hypercorn 0.17.3: 1 scenario in " in first.stdout
    monkeypatch.setattr(venvs, "_make", None)
    assert run(*arguments).exit_code == 0


def checking(app: str, tmp_path: Path, *arguments: str) -> tuple[subprocess.Popen[bytes], Path]:
    """Start a check of an application; return it, and the directory of what it starts."""
    folder = tmp_path / "servers"
    folder.mkdir()
    # A shell that runs the tests in the background has them ignore SIGINT, `nohup` SIGHUP.
    code = "import signal as s; s.signal(s.SIGINT, s.default_int_handler); "
    code += "s.signal(s.SIGHUP, s.SIG_DFL); from ws_lifecycle_metrics.cli import main; main()"
    command = [sys.executable, "-c", code, "check", f"tests.conformance.apps:{app}", *SERVER]
    with (tmp_path / "report").open("wb") as out, (tmp_path / "said").open("wb") as said:
        process = subprocess.Popen(
            [*command, *arguments],
            env={**os.environ, "TMPDIR": str(folder)},
            stdout=out,
            stderr=said,
        )
    return process, folder


@pytest.mark.slow
@pytest.mark.parametrize(
    "numbers",
    [(signal.SIGINT, signal.SIGINT), (signal.SIGTERM, signal.SIGINT), (signal.SIGHUP,)],
    ids=["twice", "asked, then Ctrl-C", "lost terminal"],
)
def test_a_user_who_cannot_wait_leaves_no_process(
    numbers: tuple[signal.Signals, ...], tmp_path: Path
) -> None:
    process, folder = checking("never_ending", tmp_path)
    try:
        eventually(lambda: _journal_has(folder, "open-and-close"), 30)
        started = _servers(folder)
        *early, last = numbers
        for number in early:
            process.send_signal(number)
            eventually((tmp_path / "said").read_text, 10)
        process.send_signal(last)
        assert process.wait(timeout=20) == 130
        assert started
        eventually(lambda: not _servers(folder), 5)
        assert not list(folder.iterdir())
    finally:
        process.kill()
        process.wait(timeout=10)
        for pid in _servers(folder):
            os.kill(int(pid), signal.SIGKILL)


def test_a_lost_terminal_ends_an_import_that_is_under_way(tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    source = "import os, time\nopen({!r}, 'w').write(str(os.getpid()))\ntime.sleep(60)"
    (tmp_path / "slow_app.py").write_text(source.format(str(begun)))
    code = "import signal as s; s.signal(s.SIGHUP, s.SIG_DFL); "
    code += "from ws_lifecycle_metrics.cli import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "check", "slow_app:app", *SERVER],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    eventually(lambda: begun.exists() and begun.read_text(), 30)
    place = Path("/proc", begun.read_text(), "cmdline")
    process.send_signal(signal.SIGHUP)
    assert process.wait(timeout=20) == 130
    eventually(lambda: not place.exists() or not place.read_bytes(), 5)


def test_an_import_that_takes_too_long_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "slow_app.py").write_text("import time\ntime.sleep(60)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr("ws_lifecycle_metrics.conformance.check.IMPORT_SECONDS", 1)
    result = run("check", "slow_app:app", *SERVER)
    assert result.exit_code == 2
    assert result.stderr == "Error: importing slow_app:app took longer than 1 s\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "taken_by"),
    [(signal.SIGINT, "the main thread"), (signal.SIGTERM, "another thread")],
)
def test_a_signal_ends_it_with_the_results_so_far_and_no_process_left(
    number: signal.Signals, taken_by: str, tmp_path: Path
) -> None:
    process, folder = checking("echo", tmp_path, "--format", "json")
    eventually(lambda: _journal_has(folder, "close-1001"), 30)
    started = _servers(folder)
    threads = {int(name) for name in os.listdir(f"/proc/{process.pid}/task")}
    # A thread's id asks for that thread; a process's id leaves it to the kernel, mostly the main.
    others = threads - {process.pid}
    os.kill(process.pid if taken_by == "the main thread" else min(others), number)
    assert process.wait(timeout=40) == 130
    assert started
    assert not _servers(folder)
    assert not list(folder.iterdir())
    assert (tmp_path / "said").read_text().startswith("interrupted: each server ends")
    report = json.loads((tmp_path / "report").read_text())
    (server,) = report["servers"]
    assert report["exit_code"] == 130
    assert server["interrupted"]
    assert [result["scenario"] for result in server["results"]][:2] == [
        "open-and-close",
        "close-at-once",
    ]
    assert len(server["results"]) < 20


def test_a_server_that_an_interrupt_comes_before_is_marked() -> None:
    def interrupt(_server: str, _scenario: str) -> None:
        raise Stopped

    one = choose.choose(["uvicorn-websockets-sansio"])[0][0]
    half = run_server(one, [SCENARIOS["accept"], SCENARIOS["echo-text"]], interrupt)
    whole = run_server(one, [SCENARIOS["accept"]], interrupt)
    assert [result.scenario for result in half.results] == ["accept"]
    assert not whole.interrupted  # nothing was left to do
    interrupted = Report(target="", servers=(half, not_begun(one)))
    assert interrupted.exit_code == 130
    first, second, last = FORMATS["text"](interrupted).splitlines()
    assert first.endswith("stopped: interrupted, the results are incomplete")
    assert second.endswith("could not run: interrupted before it began")
    assert last == "incomplete: interrupted"


@pytest.mark.slow
def test_progress_is_for_terminals() -> None:
    command = [sys.executable, "-m", "ws_lifecycle_metrics", "check", *SERVER]
    command += ["tests.conformance.apps:echo", "--scenario", "text", "--format", "json"]
    ours, theirs = os.openpty()
    env = {**os.environ, "TERM": "dumb", "COLUMNS": "100"}
    on_terminal = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=theirs, env=env, check=True, timeout=60
    )
    os.close(theirs)
    shown = os.read(ours, 65536).decode()
    os.close(ours)
    assert "uvicorn-websockets-sansio" in shown
    assert "1/1" in shown
    assert json.loads(on_terminal.stdout)["exit_code"] == 0
    piped = subprocess.run(command, capture_output=True, env=env, check=True, timeout=60)
    assert not piped.stderr


def test_versions_of_a_server_progress_apart(monkeypatch, capsys) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # as on a terminal
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("COLUMNS", "100")
    old, new = (Chosen(kind=BY_NAME["granian"], version=v) for v in ("2.3.1", "2.3.2"))
    with _bar([old, new], 3) as advance:
        advance(old, "text")
        advance(new, "text")
        advance(new, "binary")
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", capsys.readouterr().err)
    rows = [(row.split()[1], row.split()[-1]) for row in shown.splitlines() if "granian" in row]
    assert rows[-2:] == [("2.3.1", "1/3"), ("2.3.2", "2/3")]


def _journal_has(folder: Path, scenario: str) -> bool:
    return any(scenario in place.read_text() for place in folder.glob("*/journal"))


def _servers(folder: Path) -> list[str]:
    """Return the processes whose journal is below `folder`."""
    found = []
    for place in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"CHECK_JOURNAL={folder}".encode() in place.read_bytes():
                found.append(place.parent.name)
        except OSError:
            continue
    return found


def report() -> Report:
    outcome = Outcome(
        server="granian",
        scenario="accept",
        title="a <title> & more",
        findings=("app.exception", "server.worker-frozen"),
        timeline=(Line(0.5, "app", "raised \x00 50%\n", ("app.exception",)),),
    )
    return Report(
        target="shop.asgi:app",
        servers=(
            ServerRun(name="granian", version="1", results=(outcome,)),
            ServerRun(name="daphne", version="", skipped="not installed, 100%"),
        ),
    )


def test_every_form_is_valid() -> None:
    forms = {name: form(report()) for name, form in FORMATS.items()}
    assert "server.worker-frozen" in forms["text"]
    assert json.loads(forms["json"])["exit_code"] == 1
    suites = ET.fromstring(forms["junit"])
    assert suites.find("testsuite/testcase/failure") is not None
    assert suites.find("testsuite/testcase/skipped") is not None
    sarif = json.loads(forms["sarif"])
    assert sarif["version"] == "2.1.0"
    results = sarif["runs"][0]["results"]
    assert [result["ruleId"] for result in results] == ["app.exception", "server.worker-frozen"]
    place = results[0]["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
    assert place == "shop/asgi.py"
    annotations = forms["github"].splitlines()
    assert len(annotations) == 3
    assert all(line.startswith(("::error ", "::warning ", "::notice ")) for line in annotations)
    assert "100%25" in forms["github"]


def test_two_versions_of_a_server_are_told_apart_by_every_form() -> None:
    (one,) = report().servers[0].results
    runs = [ServerRun(name="granian", version=v, results=(one,)) for v in ("2.3.1", "2.8.7")]
    forms = {
        name: form(Report(target="shop.asgi:app", servers=tuple(runs)))
        for name, form in FORMATS.items()
    }
    cases = ET.fromstring(forms["junit"]).findall("testsuite/testcase")
    assert {case.get("classname") for case in cases} == {"granian 2.3.1", "granian 2.8.7"}
    places = {
        place["fullyQualifiedName"]
        for result in json.loads(forms["sarif"])["runs"][0]["results"]
        for place in result["locations"][0]["logicalLocations"]
    }
    assert places == {"granian 2.3.1/accept", "granian 2.8.7/accept"}
    titles = {line.partition("::")[2].partition("::")[0] for line in forms["github"].splitlines()}
    assert len(titles) == 4
    assert "error title=app.exception on granian 2.3.1" in titles


def test_a_run_that_could_not_run_is_no_clean_one_for_code_scanning() -> None:
    unclear = Outcome(server="granian", scenario="text", title="sends", unclear="no answer")
    runs = (
        ServerRun(name="granian", version="1", results=(unclear,)),
        ServerRun(name="hypercorn", version="2", failed="it floods"),
        ServerRun(name="daphne", version="", skipped="not installed"),
    )

    def invocation(shown: Report) -> dict[str, object]:
        (found,) = json.loads(FORMATS["sarif"](shown))["runs"][0]["invocations"]
        assert isinstance(found, dict)
        return found

    failed = invocation(Report(target="", servers=runs))
    assert not failed["executionSuccessful"]
    assert failed["toolExecutionNotifications"] == [
        {"level": level, "message": {"text": text}}
        for level, text in (
            ("error", "granian 1, sends: could not run: no answer"),
            ("error", "hypercorn 2: could not run: it floods"),
            ("note", "daphne: skipped: not installed"),
        )
    ]
    assert invocation(report())["executionSuccessful"]  # findings are what it is run for


@pytest.mark.parametrize(
    ("runs", "code"),
    [
        ({"failed": "it floods"}, 2),
        ({"skipped": "not installed"}, 0),
        ({"interrupted": True}, 130),
    ],
    ids=["failed", "skipped", "interrupted"],
)
def test_one_server_that_failed_is_not_hidden_by_another(runs: dict[str, Any], code: int) -> None:
    fine = ServerRun(name="x", version="1", results=(Outcome(server="x", scenario="a", title="a"),))
    other = ServerRun(name="y", version="1", **runs)
    assert Report(target="", servers=(fine, other)).exit_code == code


def test_what_could_not_run_is_told_to_people() -> None:
    query = ("--subprotocol", "graphql-transport-ws", "--query", "{ nope }")
    arguments = ("check", "tests.conformance.apps:graphql", *SERVER, *query)
    result = run(*arguments, "--scenario", "gql-query", "--scenario", "gql-reset")
    assert result.exit_code == 2
    lines = result.stdout.splitlines()
    why = "the operation was refused: Cannot query field 'nope' on type 'Query'"
    assert lines[0].endswith("2 could not run")
    assert lines[1].startswith(f"  gql-query: the client runs an operation: could not run: {why}")
    assert re.fullmatch(
        r"could not run on uvicorn-websockets-sansio [\d.]+ \(gql-query, gql-reset\)", lines[-1]
    )


def test_all_servers_that_could_not_run_are_named() -> None:
    names = ("granian", "daphne", "hypercorn")
    runs = tuple(ServerRun(name=name, version="1", failed="no answer") for name in names)
    text = FORMATS["text"](Report(target="x", servers=runs))
    assert text.splitlines()[-1] == "could not run on granian 1, daphne 1, hypercorn 1"


def test_what_is_unclear_is_told_to_programs() -> None:
    outcome = Outcome(server="granian", scenario="text", title="sends", unclear="no\x1b answer")
    runs = (ServerRun(name="granian", version="1", results=(outcome,)),)
    forms = {name: form(Report(target="", servers=runs)) for name, form in FORMATS.items()}
    assert json.loads(forms["json"])["servers"][0]["results"][0]["unclear"] == "no\x1b answer"
    suite = ET.fromstring(forms["junit"]).find("testsuite")
    assert suite is not None
    assert (suite.get("failures"), suite.get("errors")) == ("0", "1")
    error = suite.find("testcase/error")
    assert error is not None
    assert error.get("message") == "no? answer"
    assert forms["github"].startswith("::error title=granian 1::sends: could not run: no")


def test_doctor_prints_and_returns(tmp_path: Path) -> None:
    place = ("--directory", str(tmp_path), "--service", "test", "--port", "1")
    result = run("doctor", *place)
    assert result.exit_code in (0, 1)
    assert "directory: " in result.stdout
    as_json = run("doctor", *place, "--json")
    assert json.loads(as_json.stdout)["exit_code"] == as_json.exit_code


def test_every_server_can_be_named() -> None:
    assert set(BY_NAME) == {kind.name for kind in KINDS}
