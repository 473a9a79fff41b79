"""The results: one JSON file for each part and Python, with all samples."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .measure import ROOT, Effort, machine, versions
from .part import Data

COMMITTED = ROOT / "benchmarks" / "results"
OWN = ("ws-lifecycle-metrics",)


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """What a part has measured, and where; `load` is that of the machine, before and after."""

    part: str
    machine: dict[str, str]
    versions: dict[str, str]
    effort: dict[str, Any]
    load: tuple[float, float]
    seconds: float
    data: Data

    @property
    def python(self) -> str:
        """The interpreter without its patch version, such as CPython 3.11."""
        return self.machine["python"].rpartition(".")[0]


def tag() -> str:
    """Return what stands for this interpreter in a file's name."""
    return f"{sys.implementation.name}-{sys.version_info[0]}.{sys.version_info[1]}"


def result(part: str, effort: Effort, data: Data, load: float, began: float) -> Result:
    """Put what a part has measured together with where and when."""
    return Result(
        part=part,
        machine=machine(),
        versions=versions(OWN) | data.pop("versions", {}),
        effort=asdict(effort),
        load=(round(load, 2), round(os.getloadavg()[0], 2)),
        seconds=round(time.monotonic() - began, 1),
        data=data,
    )


def save(folder: Path, found: Result) -> Path:
    """Write a result in place of an older one of the same part and Python."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(asdict(found), indent=1, ensure_ascii=False)
    # Samples on one line: they are read by programs, and compared as a whole.
    text = re.sub(r"\[[^\[\]{}\"]*\]", lambda found: " ".join(found[0].split()), text)
    path = folder / f"{found.part}-{tag()}.json"
    path.write_text(text + "\n", encoding="utf-8")
    return path


def load(folder: Path) -> dict[str, list[Result]]:
    """Return the results by part, the oldest Python first."""
    found: dict[str, list[Result]] = {}
    for path in sorted(folder.glob("*.json"), key=_by_version):
        fields = json.loads(path.read_text(encoding="utf-8"))
        fields["load"] = tuple(fields["load"])
        one = Result(**fields)
        found.setdefault(one.part, []).append(one)
    return found


def _by_version(path: Path) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", path.stem)))
