"""Imports only point down the floors, importing is cheap, and every public name is explained."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "ws_lifecycle_metrics"
MODULES = sorted(PACKAGE.rglob("*.py"))
ids = {"ids": [str(path.relative_to(PACKAGE)) for path in MODULES]}

# A module may import from its own floor and from those above it in this list.
FLOORS = [
    {"protocol", "catalog", "config", "labels", "advisories"},
    {"store", "watchdog"},
    {"conversation", "middleware", "integrations", "telemetry", "testing"},
    {"exporter", "conformance"},
    {"cli", "__init__", "__main__"},
]
FLOOR_OF = {name: floor for floor, names in enumerate(FLOORS) for name in names}

MOST_LINES = {
    # Tables: what they hold belongs on one page, and is read by the entry.
    "protocol/rules.py": 600,
    "catalog.py": 600,
    # One entry a scenario: data, and no code.
    "conformance/scenarios.py": 1200,
    # The hot path: a conversation's counts are kept in one object, without a call between.
    "conversation.py": 560,
    # Options are data, with their help beside them.
    "config.py": 420,
}


def imported_parts(source: str, module: str) -> Iterator[str]:
    """Yield the top-level parts of the package that a module imports, lazily or not.

    `module` is its path within the package, such as `store/reader.py`.
    """
    home = [PACKAGE.name, *Path(module).parent.parts]
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                targets = [name.name.split(".") for name in names]
            case ast.ImportFrom(level=0, module=str(path), names=names):
                targets = [[*path.split("."), name.name] for name in names]
            case ast.ImportFrom(level=level, module=path, names=names):
                base = home[: len(home) - level + 1] + (path.split(".") if path else [])
                targets = [[*base, name.name] for name in names]
            case _:
                continue
        for target in targets:
            if target[0] == PACKAGE.name:
                yield target[1] if len(target) > 1 and target[1] in FLOOR_OF else "__init__"


def climbs(source: str, module: str) -> set[str]:
    """Return the parts that a module imports although they are on a higher floor."""
    own = FLOOR_OF[Path(module).parts[0].removesuffix(".py")]
    return {part for part in imported_parts(source, module) if FLOOR_OF[part] > own}


def test_every_part_of_the_package_stands_on_a_floor():
    parts = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in MODULES}
    assert parts <= set(FLOOR_OF)


@pytest.mark.parametrize("path", MODULES, **ids)
def test_imports_point_down(path):
    module = str(path.relative_to(PACKAGE))
    assert not climbs(path.read_text(), module)


@pytest.mark.parametrize(
    ("source", "module", "found"),
    [
        ("from .store import reader", "catalog.py", {"store"}),
        ("from ..store.reader import Reader", "protocol/rules.py", {"store"}),
        ("from .. import middleware", "store/worker.py", {"middleware"}),
        ("from ws_lifecycle_metrics import exporter", "telemetry/logs.py", {"exporter"}),
        ("from ws_lifecycle_metrics.cli import main", "exporter/live.py", {"cli"}),
        ("import ws_lifecycle_metrics.middleware as m", "store/worker.py", {"middleware"}),
        ("def lazy():\n    from ..exporter import live", "store/worker.py", {"exporter"}),
        ("if TYPE_CHECKING:\n    from . import cli", "middleware.py", {"cli"}),
        ("from ws_lifecycle_metrics import Config", "store/worker.py", {"__init__"}),
        ("from . import archive\nfrom .. import catalog", "store/worker.py", set()),
        ("from .telemetry.logs import log_fault", "middleware.py", set()),
        ("import json\nfrom prometheus_client import core", "catalog.py", set()),
    ],
)
def test_an_import_that_points_up_is_found(source, module, found):
    assert climbs(source, module) == found


HEAVY = {"strawberry", "graphql", "opentelemetry", "prometheus_client", "rich", "click", "fastapi"}
HEAVY |= {"starlette", "django", "channels", "litestar", "h11"}


@pytest.mark.parametrize(
    "code",
    [
        "import ws_lifecycle_metrics",
        "import ws_lifecycle_metrics; dir(ws_lifecycle_metrics)",
        "from ws_lifecycle_metrics import Config, LifecycleMiddleware, ProtocolViolation",
    ],
)
def test_importing_loads_no_heavy_library(code):
    done = subprocess.run(
        [sys.executable, "-c", f"{code}; import sys; print(*sys.modules)"],
        cwd=PACKAGE.parent,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert not HEAVY & {name.partition(".")[0] for name in done.stdout.split()}


def test_every_public_name_can_be_had():
    import ws_lifecycle_metrics

    for name in ws_lifecycle_metrics.__all__:
        assert getattr(ws_lifecycle_metrics, name).__name__ == name
    assert dir(ws_lifecycle_metrics) == sorted(ws_lifecycle_metrics.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Konfig'"):
        ws_lifecycle_metrics.Konfig  # noqa: B018  # the access is what is tested


def undocumented(source: str) -> list[str]:
    """Return the module and its public classes, functions and methods without a docstring."""
    tree = ast.parse(source)
    found = [] if ast.get_docstring(tree) else ["the module"]

    def walk(body: list[ast.stmt], prefix: str = "") -> None:
        for node in body:
            if not isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                continue
            if node.name.startswith("_"):
                continue
            if not ast.get_docstring(node):
                found.append(prefix + node.name)
            if isinstance(node, ast.ClassDef):
                walk(node.body, f"{node.name}.")

    walk(tree.body)
    return found


@pytest.mark.parametrize("path", MODULES, **ids)
def test_every_public_name_has_a_docstring(path):
    assert not undocumented(path.read_text())


def test_a_missing_docstring_is_found():
    source = "class A:\n    def b(self): ...\n    def _c(self): ...\nasync def d(): ..."
    assert undocumented(source) == ["the module", "A", "A.b", "d"]


@pytest.mark.parametrize("path", MODULES, **ids)
def test_no_file_is_long(path):
    module = str(path.relative_to(PACKAGE))
    assert len(path.read_text().splitlines()) <= MOST_LINES.get(module, 300)
