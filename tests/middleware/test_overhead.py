"""The benchmark runs and says what it must; what the figures are is no matter of a test."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "overhead.py"
TINY = ["--rounds", "2", "--messages", "20", "--connections", "5", "--open", "70"]


def run(*options: str) -> str:
    command = [sys.executable, str(SCRIPT), *TINY, *options]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


def test_table() -> None:
    output = run()
    for word in ("message, ns", "connection, ns", "idle connection, bytes", "middleware", "PGO"):
        assert word in output


def test_json() -> None:
    result = json.loads(run("--json"))
    assert set(result["figures"]) == {"message", "connection", "idle connection"}
    for figure, rows in result["figures"].items():
        assert set(rows) == {"bare", "no-op wrapper", "middleware"}
        assert rows["no-op wrapper"]["ratio"] == 1
        assert rows["middleware"]["median"] > 0
        rounds = 1 if figure == "idle connection" else 2
        assert len(result["samples"][figure]["middleware"]) == rounds
    assert {"python", "build", "machine", "date"} <= set(result["machine"])


@pytest.mark.parametrize("option", ["--size=0", "--messages=2"])
def test_small_counts(option: str) -> None:
    assert "middleware" in run(option)
