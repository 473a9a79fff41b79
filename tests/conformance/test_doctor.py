"""The doctor: what it says of versions, the directory, segments, settings and the exporter."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from itertools import islice

import pytest

from tests.exporter.certificates import Site
from tests.exporter.traffic import asynchronous
from tests.store.support import die, start_worker
from ws_lifecycle_metrics import Config
from ws_lifecycle_metrics.config import ExporterConfig
from ws_lifecycle_metrics.conformance import doctor, running, sidecar
from ws_lifecycle_metrics.conformance.process import free_port
from ws_lifecycle_metrics.exporter.server import Exporter
from ws_lifecycle_metrics.store import layout as at


def examined(tmp_path, service="test", **options):
    config = Config(service=service, directory=str(tmp_path))
    given = {"port": free_port(), **options}
    exporter = ExporterConfig(service=service, directory=str(tmp_path), **given)
    return {finding.subject: finding for finding in doctor.examine(config, exporter)}


@pytest.fixture(autouse=True)
def _no_processes(monkeypatch):
    monkeypatch.setattr(doctor, "serving_processes", lambda: iter(()))


def test_a_fresh_place_is_fine(tmp_path):
    found = examined(tmp_path)
    assert found["directory"].level == "note"
    assert found["shared memory"].level == "ok"
    assert found["clock"].level == "ok"
    assert found["python"].level == "ok"
    assert found["exporter"].level == "note"
    assert doctor.exit_code(list(found.values())) == 0


def test_a_service_that_no_worker_has_used_is_told_with_those_that_there_are(tmp_path):
    early = examined(tmp_path, "nope")["service"]
    worker = start_worker(tmp_path, service="uv")
    found = examined(tmp_path, "nope")
    own = examined(tmp_path, "uv")["service"]
    worker.close()
    assert (early.level, own.level) == ("note", "ok")
    assert found["service"].level == "warning"
    assert found["service"].text.endswith("; there are: uv")
    assert not (tmp_path / "nope").exists()


def test_a_directory_that_others_can_write_is_an_error(tmp_path):
    (tmp_path / "test").mkdir(mode=0o777)
    (tmp_path / "test").chmod(0o777)
    found = examined(tmp_path)
    assert found["directory"].level == "error"
    assert "0777" in found["directory"].text
    assert doctor.exit_code(list(found.values())) == 1


@pytest.mark.parametrize("base", ["file", "file/below", "dangling", "dangling/below", "service"])
def test_a_place_where_no_directory_can_be_made_is_an_error(tmp_path, base):
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "service").mkdir()
    (tmp_path / "service" / "test").touch()
    found = examined(tmp_path / base)["directory"]
    assert found.level == "error"
    assert "not a directory" in found.text.lower()
    if base != "service":
        assert f"{tmp_path / base.partition('/')[0]} is not a directory" in found.text


def test_the_memory_that_is_free_counts(tmp_path, monkeypatch):
    usage = type(shutil.disk_usage(tmp_path))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(1 << 30, (1 << 30) - 1, 1))
    found = examined(tmp_path)["shared memory"]
    assert (found.level, "0 MiB free of 1024 MiB" in found.text) == ("warning", True)


def test_segments_alive_and_dead_are_counted(tmp_path):
    living = start_worker(tmp_path, service="test")
    die(start_worker(tmp_path, service="test"))
    found = examined(tmp_path)
    assert found["segments"].text == "1 alive, 1 dead"
    assert "folds them" in found["segments"].advice
    assert not {"outdated segments", "damaged segments"} & set(found)
    living.close()


def test_a_segment_whose_loop_has_ended_is_not_alive(tmp_path):
    workers = [start_worker(tmp_path, service="test") for _ in range(2)]
    header = workers[0].segment.header
    header[at.DRAINING_SINCE] = header[at.BEATS] = 1
    assert examined(tmp_path)["segments"].text == "1 alive, 0 dead"
    for worker in workers:
        worker.close()


def outdate(worker):
    worker.segment.header[at.FINGERPRINT_AT] += 1
    return worker


def test_segments_of_another_version_are_not_dead_ones(tmp_path):
    for _ in range(3):
        die(outdate(start_worker(tmp_path, service="test")))
    place = tmp_path / "test"
    (place / segments_of(place)[0]).rename(place / "1-it's $HOME.segment")
    (place / "1-it's $HOME.stacks").touch()
    living = start_worker(tmp_path, service="test")
    found = examined(tmp_path)
    assert found["segments"].text == "1 alive, 0 dead"
    assert found["segments"].advice == ""
    left = found["outdated segments"]
    assert left.level == "note"
    assert left.text.startswith("3 of another version, whose workers have ended")
    assert "when they are a day old" in left.advice
    command = left.advice.partition("now: ")[2]
    subprocess.run(["/bin/sh", "-c", command], check=True, timeout=20)
    assert segments_of(place) == [living.segment.name]
    assert not (place / "1-it's $HOME.stacks").exists()
    living.close()


def test_running_workers_of_another_version_are_named_as_such(tmp_path):
    worker = outdate(start_worker(tmp_path, service="test"))
    found = examined(tmp_path)["outdated segments"]
    assert found.level == "warning"
    assert found.text.startswith("1 of another version, whose workers run")
    die(worker)


def test_damaged_segments_are_not_dead_ones(tmp_path):
    die(start_worker(tmp_path, service="test"))
    (tmp_path / "test" / "left-behind.segment").write_bytes(b"")
    (tmp_path / "test" / "link.segment").symlink_to("/etc/passwd")
    found = examined(tmp_path)
    assert found["segments"].text == "0 alive, 1 dead"
    assert found["damaged segments"].text.startswith("2 cannot be trusted or read, such as left-")


def test_a_damaged_archive_is_told(tmp_path):
    worker = start_worker(tmp_path, service="test")
    assert "archive" not in examined(tmp_path)
    (tmp_path / "test" / "archive.json").write_text("{")
    found = examined(tmp_path)
    worker.close()
    assert found["archive"].level == "warning"
    assert found["archive"].text.startswith("archive.json is not read: not an archive: ")


def segments_of(place):
    return sorted(path.name for path in place.glob("*.segment"))


@asynchronous
async def test_a_sidecar_of_another_service_is_not_taken_for_ours(tmp_path):
    exporter = Exporter(ExporterConfig(service="uv", directory=str(tmp_path), port=0))
    _, port = await exporter.start()
    try:
        own = await asyncio.to_thread(examined, tmp_path, "uv", port=port)
        other = await asyncio.to_thread(examined, tmp_path, "oops", port=port)
    finally:
        await exporter.aclose()
    address = f"127.0.0.1:{port}"
    assert (own["exporter"].level, own["exporter"].text) == ("ok", f"{address} answers for 'uv'")
    assert other["exporter"].level == "warning"
    assert other["exporter"].text == f"{address} serves 'uv', not 'oops'"


@asynchronous
async def test_a_sidecar_that_may_not_read_its_directory_says_why(tmp_path):
    (tmp_path / "uv").mkdir()
    (tmp_path / "uv").chmod(0o777)
    exporter = Exporter(ExporterConfig(service="uv", directory=str(tmp_path), port=0))
    _, port = await exporter.start()
    try:
        found = (await asyncio.to_thread(examined, tmp_path, "uv", port=port))["exporter"]
    finally:
        await exporter.aclose()
    assert found.level == "warning"
    assert found.text.startswith(f"127.0.0.1:{port} collects nothing: 'the directory of segments")
    assert found.text.endswith("mode 0777 lets others write'")


CERTIFIED = {"client_auth_type": "RequireAndVerifyClientCert", "client_ca_file": "ca.pem"}


@pytest.mark.parametrize(
    ("tls", "users", "level", "text"),
    [
        (None, {}, "ok", "answers for 'uv'"),
        ({}, {"alice": "$2y$04$" + "a" * 53}, "note", "answers, and asks for a password"),
        (CERTIFIED, {}, "note", "answers, and asks for a certificate"),
    ],
)
@asynchronous
async def test_a_guarded_sidecar_is_told_from_none(tmp_path, tls, users, level, text):
    path = Site(tmp_path).write(tls, basic_auth_users=users)
    given = {"service": "uv", "directory": str(tmp_path), "port": 0, "web_config_file": path}
    exporter = Exporter(ExporterConfig(**given))
    _, port = await exporter.start()
    try:
        found = (await asyncio.to_thread(examined, tmp_path, "uv", port=port))["exporter"]
    finally:
        await exporter.aclose()
    assert (found.level, found.text) == (level, f"127.0.0.1:{port} {text}")


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n<h1>\x1b[31mhello</h1>", "does not say which service"),
        (b'HTTP/1.1 200 OK\r\n\r\n{"service": 5}', "does not say which service"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"[" * 4000, "does not say which service"),
        (b"", "does not say which service"),
        (b"SSH-2.0-x\r\n", "does not speak HTTP"),
    ],
    ids=["a page", "another object", "deep", "nothing more", "no HTTP"],
)
@asynchronous
async def test_what_is_no_sidecar_is_not_taken_for_one(tmp_path, monkeypatch, answer, text):
    monkeypatch.setattr(sidecar, "SECONDS", 0.5)  # one of them waits for more than it gets

    async def serve(reader, writer):
        asked = await reader.readuntil(b"\r\n\r\n")
        writer.write(answer if answer or b"/connections" in asked else b"HTTP/1.1 200 OK\r\n\r\n")
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        found = (await asyncio.to_thread(examined, tmp_path, port=port))["exporter"]
    assert found.level == "warning"
    assert text in found.text


def test_an_old_version_is_an_error_and_a_fault_without_a_fix_a_note(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "PACKAGES", ("granian",))
    monkeypatch.setattr(doctor, "version", lambda package: "2.3.1")
    findings = list(doctor._versions())
    levels = {finding.text.split()[1]: finding.level for finding in findings}
    assert levels["granian-duplicate-connect"] == "error"
    assert levels["granian-no-pings"] == "note"
    assert all(finding.advice and finding.source for finding in findings)


@pytest.mark.parametrize(
    ("command", "word"),
    [
        (["python", "-m", "granian", "app:app"], "takes the whole server"),
        (["gunicorn", "--reuse-port", "app:app"], "share the port"),
        (["granian", "--respawn-failed-workers", "--no-respawn-failed-workers"], "takes the whole"),
        (["gunicorn", "--timeout=0", "app:app"], "never restarted"),
        (["gunicorn", "--timeout", "0", "app:app"], "never restarted"),
        (["gunicorn", "app:app", "-t", "0"], "never restarted"),
        (["gunicorn", "-t0", "app:app"], "never restarted"),
        (["gunicorn", "--timeout=30", "-t", "0"], "never restarted"),
    ],
    ids=[
        *("no respawn", "shared port", "respawn withdrawn", "no timeout", "two words", "short"),
        *("short in one word", "the last counts"),
    ],
)
def test_settings_that_defeat_detection_are_named(command, word, monkeypatch):
    monkeypatch.setattr(doctor, "serving_processes", lambda: iter([("server (1)", command)]))
    assert [finding.level for finding in doctor._settings() if word in finding.text] == ["warning"]


SERVER = """\
import os, sys
if len(sys.argv) < 3:  # as a server does that starts its workers anew
    os.spawnv(os.P_NOWAIT, sys.executable, [sys.executable, *sys.argv, "worker"])
elif os.fork():  # as one does that forks
    print(flush=True)
sys.stdin.read()
"""


def test_a_server_and_its_workers_are_one_server(tmp_path):
    script = tmp_path / "granian"
    script.write_text(SERVER)
    with running_server(script) as one, running_server(script) as another:
        names = [name for name, command in running.serving_processes() if "--mine" in command]
    assert sorted(names) == sorted(f"granian ({server.pid})" for server in (one, another))


def test_a_circle_of_parents_has_an_end():
    assert list(islice(running._above(1, {1: 2, 2: 1}), 9)) == [2]
    assert list(islice(running._above(3, {3: 2, 2: 1, 1: 0}), 9)) == [2, 1]


def test_a_server_of_another_user_is_that_users_business(tmp_path, monkeypatch):
    script = tmp_path / "granian"
    script.write_text(SERVER)
    with running_server(script) as server:
        ours = dict(running.serving_processes())
        own = os.geteuid()
        monkeypatch.setattr(running.os, "geteuid", lambda: own + 1)
        theirs = dict(running.serving_processes())
    assert f"granian ({server.pid})" in ours
    assert f"granian ({server.pid})" not in theirs


@pytest.mark.parametrize(
    ("name", "variable", "text", "read"),
    [
        ("granian", "GRANIAN_RESPAWN_FAILED_WORKERS", "True", ["--respawn-failed-workers"]),
        ("granian", "GRANIAN_RESPAWN_FAILED_WORKERS", "off", []),
        ("gunicorn", "GUNICORN_CMD_ARGS", "--workers=2 -t 0", ["--workers=2", "-t", "0"]),
        ("gunicorn", "GUNICORN_CMD_ARGS", "--name='open", []),
        ("gunicorn", "GRANIAN_RESPAWN_FAILED_WORKERS", "1", []),
    ],
    ids=["a switch", "a switch turned off", "arguments", "no arguments", "another server's"],
)
def test_what_a_server_reads_from_its_environment_counts(tmp_path, name, variable, text, read):
    script = tmp_path / name
    script.write_text(SERVER)
    with running_server(script, **{variable: text}) as server:
        command = dict(running.serving_processes())[f"{name} ({server.pid})"]
    assert command[-2 - len(read) :] == [name, *read, "--mine"]


@contextmanager
def running_server(script, **variables):
    """Run a server with two processes below it, until its input is closed."""
    command = [sys.executable, str(script), "--mine"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, env={**os.environ, **variables}, **pipes) as server:
        server.stdout.readline()
        yield server
        server.stdin.close()


@pytest.mark.parametrize(
    "command",
    [
        ["granian", "--respawn-failed-workers", "app:app"],
        ["granian", "--no-respawn-failed-workers", "--respawn-failed-workers", "app:app"],
        ["gunicorn", "--timeout", "30", "app:app"],
        ["gunicorn", "-t", "0", "--timeout=30", "app:app"],
        ["gunicorn", "--timeout"],
        ["gunicorn", "--threads", "0", "app:app"],
        ["uvicorn", "--timeout", "0", "app:app"],
    ],
    ids=" ".join,
)
def test_safe_settings_are_silent(command, monkeypatch):
    monkeypatch.setattr(doctor, "serving_processes", lambda: iter([(f"{command[0]} (1)", command)]))
    assert list(doctor._settings()) == []


def test_a_variable_that_sets_nothing_is_named_with_the_nearest(tmp_path, monkeypatch):
    for name in ("POLCY", "POLICY", "RECYCLE_STUCK", "SERVICE", "DIRECTORY"):
        monkeypatch.setenv(f"WS_LIFECYCLE_{name}", "")
    monkeypatch.setenv("WS_LIFECYLCE_POLICY", "not ours")
    found = examined(tmp_path)["environment"]
    assert (found.level, found.text) == ("warning", "WS_LIFECYCLE_POLCY sets nothing")
    assert found.advice == "did you mean WS_LIFECYCLE_POLICY?"
    monkeypatch.delenv("WS_LIFECYCLE_POLCY")
    assert "environment" not in examined(tmp_path)


def test_a_check_that_fails_is_a_finding(tmp_path, monkeypatch):
    def broken():
        raise OSError("no such thing")

    monkeypatch.setattr(doctor, "_clock", broken)
    assert examined(tmp_path)["clock"].level == "warning"


def test_json_is_complete(tmp_path):
    findings = list(examined(tmp_path).values())
    read = json.loads(doctor.as_json(findings))
    assert read["exit_code"] == 0
    assert len(read["findings"]) == len(findings)
