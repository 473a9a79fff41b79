"""The servers: how each is started with any application, and how to tell that it is not there."""

from __future__ import annotations

import importlib.util
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from .process import HOST, Command

_HERE = __package__


@dataclass(frozen=True, kw_only=True)
class ServerKind:
    """One way to serve an ASGI application.

    `arguments` are given to `python -m`, with `{host}`, `{port}` and `{app}` filled in;
    `modules` must be importable; `packages` are what pip installs, the server's own first.
    """

    name: str
    arguments: str
    modules: tuple[str, ...]
    packages: tuple[str, ...]
    ready: str = ""

    @property
    def distribution(self) -> str:
        """The package whose version is the server's."""
        return self.packages[0].partition(">")[0]

    def command(self, app: str, python: str = sys.executable, cwd: Path | None = None) -> Command:
        """Return how to start it with `app`, a `module:attribute`, on one worker."""

        def argv(port: int) -> Sequence[str]:
            filled = self.arguments.format(host=HOST, port=port, app=app)
            return [python, "-m", *filled.split()]

        return Command(name=self.name, argv=argv, ready=self.ready, cwd=cwd)

    def missing(self) -> str:
        """Return why it cannot be run by this interpreter and what would help; empty if it can."""
        absent = [module for module in self.modules if not _importable(module)]
        if not absent:
            return ""
        return f"{', '.join(absent)} not installed; pip install {shlex.join(self.packages)}"

    def installed_version(self) -> str:
        """Return the version that this interpreter would run."""
        try:
            return version(self.distribution)
        except PackageNotFoundError:
            return "unknown"


def _importable(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _uvicorn(ws: str, library: str) -> ServerKind:
    return ServerKind(
        name=f"uvicorn-{ws}",
        arguments=f"uvicorn --ws {ws} --no-access-log --host {{host}} --port {{port}} {{app}}",
        modules=("uvicorn", library),
        packages=("uvicorn", library),
    )


KINDS: tuple[ServerKind, ...] = (
    _uvicorn("websockets", "websockets"),
    _uvicorn("websockets-sansio", "websockets"),
    _uvicorn("wsproto", "wsproto"),
    ServerKind(
        name="granian",
        arguments="granian --interface asgi --workers 1 --host {host} --port {port} {app}",
        modules=("granian",),
        packages=("granian",),
        # It loses a SIGTERM while a worker is still importing, and then never exits.
        ready="Started worker-",
    ),
    ServerKind(
        name="hypercorn",
        arguments="hypercorn --bind {host}:{port} {app}",
        modules=("hypercorn",),
        packages=("hypercorn",),
    ),
    ServerKind(
        name="daphne",
        arguments="daphne --bind {host} --port {port} {app}",
        modules=("daphne",),
        packages=("daphne",),
    ),
    ServerKind(
        name="runserver",
        arguments=f"{_HERE}.runserver {{host}}:{{port}} {{app}}",
        modules=("django", "channels", "daphne"),
        packages=("daphne", "channels", "django"),
    ),
    ServerKind(
        name="gunicorn",
        # Its control socket would stand in the home directory.
        arguments="gunicorn --worker-class asgi --workers 1 --no-control-socket "
        "--bind {host}:{port} {app}",
        modules=("gunicorn.asgi",),
        packages=("gunicorn>=25",),
        ready="ASGI server listening",  # a worker that still boots loses the SIGTERM here, too
    ),
)

BY_NAME = {kind.name: kind for kind in KINDS}
FAMILIES = {"uvicorn": tuple(kind for kind in KINDS if kind.name.startswith("uvicorn-"))}
"""Names that stand for several servers."""


def probe_version(kind: ServerKind, python: str) -> str:
    """Ask another interpreter which version of the server it would run."""
    code = f"from importlib.metadata import version; print(version({kind.distribution!r}))"
    done = subprocess.run(
        [python, "-c", code], capture_output=True, text=True, timeout=30, check=False
    )
    return done.stdout.strip() or "unknown"
