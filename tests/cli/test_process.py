"""The command line as a process: signals, exit codes, what is imported."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import signal
import socket
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import bcrypt
import httpx
import pytest

from tests.exporter.certificates import Site
from tests.exporter.traffic import asynchronous
from tests.store.support import die, start_worker
from ws_lifecycle_metrics.cli.serve import _announce
from ws_lifecycle_metrics.config import ExporterConfig
from ws_lifecycle_metrics.exporter.access import Access

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import AsyncIterator

COMMAND = (sys.executable, "-m", "ws_lifecycle_metrics")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, timeout=30, check=False
    )


@asynccontextmanager
async def serving(service: str, directory: Path, *flags: str) -> AsyncIterator[tuple[Process, str]]:
    """A sidecar in a process of its own, and the URL of the metrics that it says."""
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        *("serve", "--port", "0", "--service", service, "--directory", str(directory), *flags),
        stderr=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    try:
        line = (await asyncio.wait_for(process.stderr.readline(), 20)).decode()
        said = rf"serves (https?://127\.0\.0\.1:\d+/metrics) for the service {service} in "
        url = re.search(said, line)
        assert url is not None, line
        yield process, url[1]
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def test_help() -> None:
    result = run("--help")
    assert result.returncode == 0
    assert "Usage: ws-lifecycle-metrics" in result.stdout
    assert result.stderr == ""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda n: n.name)
@asynchronous
async def test_a_signal_ends_it_although_a_client_stays(
    tmp_path: Path, number: signal.Signals
) -> None:
    async with (
        serving("test", tmp_path) as (process, url),
        httpx.AsyncClient(trust_env=False) as http,  # it stays connected
    ):
        answer = await http.get(url)
        assert answer.status_code == 200
        process.send_signal(number)
        # A second is what it takes at most, of a processor that others want, too.
        out, err = await asyncio.wait_for(process.communicate(), 5)
    assert process.returncode == 0
    assert out == b""
    assert err.decode().endswith("INFO stopped\n")


@asynchronous
async def test_it_is_guarded_by_a_web_configuration(tmp_path: Path) -> None:
    site = Site(tmp_path)
    secret = bcrypt.hashpw(b"open sesame", bcrypt.gensalt(4)).decode()
    path = site.write(basic_auth_users={"alice": secret})
    async with (
        serving("test", tmp_path, "--web-config-file", path) as (_, url),
        httpx.AsyncClient(trust_env=False, verify=site.client()) as http,
    ):
        assert url.startswith("https://")
        assert (await http.get(url)).status_code == 401
        assert (await http.get(url, auth=("alice", "open sesame"))).status_code == 200


def test_a_web_configuration_that_is_not_accepted_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "web.yml").write_text("basic_auth: {}")
    place = ("--port", "0", "--directory", str(tmp_path))
    result = run("serve", *place, "--web-config-file", str(tmp_path / "web.yml"))
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert "'basic_auth' is not known; accepted are tls_server_config" in result.stderr


@pytest.mark.parametrize(
    ("tls", "users", "address", "missing"),
    [
        (False, False, "127.0.0.1", None),
        (False, False, "::1", None),
        (False, False, "0.0.0.0", "encryption or password"),
        (False, False, "fe80::1%lo", "encryption or password"),
        (True, False, "10.0.0.1", "password"),
        (False, True, "10.0.0.1", "encryption"),
        (True, True, "10.0.0.1", None),
    ],
)
def test_what_others_could_do_is_told(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    tls: bool,
    users: bool,
    address: str,
    missing: str | None,
) -> None:
    secret = "$2y$10$" + "a" * 53
    path = Site(tmp_path).write(
        None if tls else {}, basic_auth_users={"alice": secret} if users else {}
    )
    config = ExporterConfig(directory=str(tmp_path), web_config_file=path)
    with caplog.at_level("INFO"):
        _announce(config, Access(path), address, 10464)
    warnings = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    said = f"other machines can reach it without {missing}: see web_config_file"
    assert warnings == ([] if missing is None else [said])
    assert (" https://" in caplog.text) is tls


@pytest.mark.parametrize("used", [False, True], ids=["never used", "used"])
@asynchronous
async def test_the_sidecar_says_once_that_no_worker_has_come(tmp_path: Path, used: bool) -> None:
    die(start_worker(tmp_path, service="uv"))
    async with serving("uv" if used else "oops", tmp_path) as (process, url):
        async with httpx.AsyncClient(trust_env=False) as http:
            for path in ("/metrics", "/connections", "/"):  # and its own looks
                assert (await http.get(url.replace("/metrics", path))).status_code == 200
        process.send_signal(signal.SIGTERM)
        rest = (await asyncio.wait_for(process.communicate(), 5))[1].decode()
    said = f"WARNING no worker has used the service 'oops' in {tmp_path}; there are: uv\n"
    assert rest.count("no worker has used") == rest.count(said) == (not used)


def test_a_port_in_use_is_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = run("serve", "--port", str(port), "--directory", str(tmp_path))
    assert result.returncode == 2
    why = os.strerror(98) if sys.platform == "linux" else "in use"
    assert result.stderr == f"Error: cannot listen on 127.0.0.1:{port}: {why}\n"


def test_an_unknown_host_is_one_line(tmp_path: Path) -> None:
    result = run("serve", "--host", "no.such.host.invalid", "--directory", str(tmp_path))
    assert result.returncode == 2
    assert result.stderr.startswith("Error: cannot listen on no.such.host.invalid:10464: ")
    assert result.stderr.count("\n") == 1


def test_a_reader_that_leaves_gets_no_traceback() -> None:
    with subprocess.Popen(
        [*COMMAND, "rules"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert "Traceback" not in process.stderr.read()
        process.wait(20)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the device that is always full")
@pytest.mark.parametrize("words", ["rules", "rules --json", "connections", "--help"])
def test_an_output_without_room_is_one_line(tmp_path: Path, words: str) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*COMMAND, *words.split()],
            env={**os.environ, "WS_LIFECYCLE_DIRECTORY": str(tmp_path)},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=30,
            check=False,
        )
    assert done.returncode == 2
    assert done.stderr == f"Error: cannot write the output: {os.strerror(errno.ENOSPC)}\n"


def test_the_list_of_commands_imports_nothing_heavy() -> None:
    heavy = ("prometheus_client", "rich", "h11", "asyncio", "opentelemetry", "strawberry")
    code = (
        "import sys, ws_lifecycle_metrics.cli\n"
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True
    )
    assert result.stdout == "[]\n"
