"""The README is executed: its code, its commands, its output and its numbers."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.servers.harness import HOST, ROOT, Running, Server, eventually, start
from ws_lifecycle_metrics import Config
from ws_lifecycle_metrics.config import ExporterConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

README = (ROOT / "README.md").read_text()
BIN = Path(sys.executable).parent
FENCE = re.compile(r"^```(?P<info>.*)\n(?P<text>(?:.*\n)*?)```$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block; `kind` is what stands behind the backticks."""

    kind: str
    text: str
    line: int

    @property
    def title(self) -> str:
        return self.text.partition("\n")[0]

    @property
    def commands(self) -> list[str]:
        return [line[2:] for line in self.text.splitlines() if line.startswith("$ ")]

    @property
    def output(self) -> list[str]:
        return [line for line in self.text.splitlines() if not line.startswith("$ ")]


def blocks(kind: str) -> list[Block]:
    return [
        Block(kind, found["text"], README[: found.start()].count("\n") + 1)
        for found in FENCE.finditer(README)
        if found["info"] == kind
    ]


def one(kind: str, start: str) -> Block:
    (found,) = (block for block in blocks(kind) if block.text.startswith(start))
    return found


def environment(folder: Path) -> dict[str, str]:
    """Return an environment in which nothing is configured but the directory, and no proxy."""
    clean = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("WS_LIFECYCLE_", "OTEL_")) and not name.lower().endswith("_proxy")
    }
    path = os.pathsep.join((str(BIN), clean.get("PATH", "")))
    return {**clean, "PATH": path, "WS_LIFECYCLE_DIRECTORY": str(folder)}


def run(command: str, folder: Path) -> list[str]:
    """Run a line of the README in a shell and return what it prints."""
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env=environment(folder),
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert not done.stderr, done.stderr
    return done.stdout.splitlines()


class Sidecar(Server):
    """The README's sidecar, on a port of its own."""

    def argv(self, port: int) -> list[str]:
        program, *arguments = shlex.split(self.command)
        return [str(BIN / program), *arguments, "--port", str(port)]


@dataclass(frozen=True)
class Story:
    """The README's application after its clients have come and gone."""

    folder: Path
    server: Running
    sidecar: Running
    talk: list[str]

    def run(self, command: str) -> list[str]:
        return run(with_ports(command, self.server, self.sidecar), self.folder)


def with_ports(text: str, server: Running, sidecar: Running | None = None) -> str:
    text = text.replace(f"{HOST}:8000", f"{HOST}:{server.port}")  # Granian's default port
    port = ExporterConfig().port
    return text.replace(f"{HOST}:{port}", f"{HOST}:{sidecar.port}") if sidecar else text


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    folder = tmp_path_factory.mktemp("readme")
    granian, serve = one("console background", "$ granian").commands
    (folder / "chat.py").write_text(one("python", "# chat.py").text)
    env = {**environment(folder), "PYTHONPATH": str(folder)}
    places = {name: folder / name for name in ("server", "sidecar")}
    for place in places.values():
        place.mkdir()
    server = start(
        Server(name="readme", command=granian, ready="Started worker-"), places["server"], env
    )
    try:
        sidecar = start(Sidecar(name="sidecar", command=serve), places["sidecar"], env)
        try:
            (folder / "talk.py").write_text(with_ports(one("python", "# talk.py").text, server))
            (talk,) = one("console run", "$ python talk.py").commands
            yield Story(folder, server, sidecar, run(talk, folder))
        finally:
            sidecar.stop()
    finally:
        server.stop()


def test_clients_print_what_is_shown(story):
    assert story.talk == one("console run", "$ python talk.py").output


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
def test_curl_prints_what_is_shown(story):
    block = one("console run", "$ curl")
    (command,) = block.commands
    # A client that has left is seen a moment later, and a collection is kept for a second.
    eventually_prints(story, command, block.output)


def test_connections_prints_what_is_shown(story):
    block = one("console run", "$ ws-lifecycle-metrics connections")
    (command,) = block.commands
    eventually_prints(story, command, block.output, shape)


def eventually_prints(
    story: Story, command: str, expected: list[str], shape: Callable[[str], str] = str
) -> None:
    """Run a command until its output is the expected one, and show the difference if it isn't."""
    printed: list[str] = []

    def same() -> bool:
        printed[:] = map(shape, story.run(command))
        return printed == list(map(shape, expected))

    with suppress(AssertionError):
        eventually(same, 10)
    assert printed == list(map(shape, expected))


def shape(line: str) -> str:
    """Return a line without what differs from run to run: ages, the worker, the widths."""
    line = re.sub(r"\b\d+(\.\d)?s\b", "AGE", line)
    return re.sub(r"\s+", " ", re.sub(r"^ *\d ", "WORKER ", line))


@pytest.mark.parametrize(
    "block",
    [b for b in blocks("console run") if not re.search(r"curl|talk|connections$", b.title)],
    ids=lambda block: block.title[2:],
)
def test_command_prints_what_is_shown(block, tmp_path):
    (command,) = block.commands
    assert run(command, tmp_path) == block.output


def test_every_other_command_is_known():
    titles = [block.title for block in blocks("console")]
    assert titles == [
        "$ pip install .    # in a checkout: there is no release yet",
        "$ WS_LIFECYCLE_SERVICE=chat granian --interface asgi --workers 2 chat:app",
    ]


PRELUDE = """
import sys
from collections.abc import AsyncGenerator
import django
import strawberry
from django.conf import settings
from fastapi import FastAPI

settings.configure(ROOT_URLCONF="none")
django.setup()

async def app(scope, receive, send):
    pass

@strawberry.type
class Query:
    ready: bool = True

@strawberry.type
class Subscription:
    @strawberry.subscription
    async def ticks(self) -> AsyncGenerator[int, None]:
        yield 1

for line, text in {blocks!r}:
    names = {{"app": app, "api": FastAPI(), "websocket_urlpatterns": [], "__name__": "readme"}}
    names |= {{"Query": Query, "Subscription": Subscription}}
    exec(compile("\\n" * line + text, "README.md", "exec"), names)
"""


def test_every_python_block_runs(tmp_path):
    found = [(b.line, b.text) for b in blocks("python") if not b.title.startswith("# ")]
    assert len(found) >= 7
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE.format(blocks=found)],
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert not done.returncode, done.stderr


def test_wrapping_takes_three_lines():
    assert len(blocks("python")[0].text.splitlines()) <= 3


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not installed")
def test_scrape_config_is_valid(tmp_path):
    config = tmp_path / "prometheus.yml"
    config.write_text(one("yaml", "scrape_configs:").text)
    done = subprocess.run(
        ["promtool", "check", "config", str(config)], capture_output=True, text=True, check=False
    )
    assert not done.returncode, done.stderr


def test_scrape_config_names_the_default_address():
    default = ExporterConfig()
    assert f'"{default.host}:{default.port}"' in one("yaml", "scrape_configs:").text


def test_every_service_rule_is_the_codes(monkeypatch):
    for name, service in {"OTEL_SERVICE_NAME": "second", "WS_LIFECYCLE_SERVICE": "first"}.items():
        assert f"`{name}`" in README
        monkeypatch.setenv(name, service)
        assert Config().service == service
    assert Config(service="configured").service == "configured"


KNOWN_NUMBERS = {
    "2.3.2": "Granian's version that cured the duplicate connect",
    "2.2.6": "Granian's first version that deadlocks",
    "2.7.0": "Granian's last one",
    "2.7.1": "Granian's version that cured it",
    "0": "a series before its first event",
    "1": "a gauge that is set",
}


def test_every_number_is_accounted_for():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    python = project["requires-python"].removeprefix(">=")
    prose = re.sub(r"<!-- generated: (.+?) -->.*?<!-- end: \1 -->", "", README, flags=re.DOTALL)
    prose = re.sub(r"`[^`]+`", "", FENCE.sub("", prose))
    prose = re.sub(r"^\d\. ", "", prose, flags=re.MULTILINE)
    numbers = set(re.findall(r"\d+(?:\.\d+)*", prose))
    assert numbers == {*KNOWN_NUMBERS, python, ExporterConfig().host}


def test_the_extras_are_those_that_users_install():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].keys()
    reference = README.partition("\n## Reference\n")[2]
    named = re.findall(r"`\[(\w+)\]`", reference.partition("```console")[0])
    assert set(named) == extras - {"demo", "bench", "dev"}
