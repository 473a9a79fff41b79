"""The benchmarks run and write what they must; what the figures are is no matter of a test."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import pytest

from benchmarks import report, results
from benchmarks.__main__ import PARTS, main
from benchmarks.measure import added, figure, ratio, turned
from benchmarks.part import Bar
from benchmarks.plots import plot_name
from benchmarks.processes import MeasureError, alternate, background, child

if TYPE_CHECKING:
    from pathlib import Path

OWN = ["--effort", "tiny", "--candidate", "ours"]
COMMITTED = results.load(results.COMMITTED)


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    def call(*arguments: str) -> tuple[dict[str, Any], str]:
        assert main([*OWN, *arguments, "--output", str(tmp_path)]) == 0
        (path,) = (tmp_path / "results").glob("*.json")
        for plot in (tmp_path / "plots").iterdir():
            assert ElementTree.parse(plot).getroot().tag.endswith("svg")
        page = (tmp_path / "benchmarks.md").read_text()
        assert capsys.readouterr().out.strip() == page.strip()
        return json.loads(path.read_text()), page

    return call


@pytest.mark.parametrize(
    "name",
    [name if name == "overhead" else pytest.param(name, marks=pytest.mark.slow) for name in PARTS],
)
def test_every_part_measures_and_is_shown(name: str, run: Any, tmp_path: Path) -> None:
    found, page = run(name)
    part = PARTS[name]
    assert found["part"] == name
    assert {"python", "build", "machine", "date"} <= set(found["machine"])
    assert not found["data"].get("missing")
    assert all(bar.measured is not None for bar in part.bars(found["data"]))
    for table in part.tables(found["data"]):
        assert table.rows
        assert all(len(row) == len(table.head) and all(row[:2]) for row in table.rows)
    for panel in part.panels(found["data"]):
        assert panel.values or panel.points
        assert (tmp_path / "plots" / plot_name(name, panel)).exists()
        assert f"(plots/{plot_name(name, panel)})" in page


@pytest.mark.slow
def test_a_peer_that_cannot_be_had_is_named(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.version_info", (3, 11, 0, "final", 0))
    found, page = run("overhead", "--candidate", "asgion")
    assert found["data"]["missing"] == {"asgion, inspect": "it needs Python 3.12"}
    assert set(found["data"]["cases"]) == {"ours"}
    assert "- asgion, inspect is not in it: it needs Python 3.12." in page


@pytest.mark.slow
def test_the_same_results_make_the_same_plots(run: Any, tmp_path: Path) -> None:
    run("overhead")
    plots = {path: path.read_bytes() for path in (tmp_path / "plots").iterdir()}
    assert main(["--report", "--output", str(tmp_path)]) == 0
    assert {path: path.read_bytes() for path in plots} == plots


def test_an_unknown_part_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["overhaed"])
    assert "overhaed" in capsys.readouterr().err


# The committed page.


def test_the_page_is_what_the_results_say() -> None:
    assert report.PAGE.read_text() == report.page(list(PARTS.values()), COMMITTED)


def test_every_picture_of_the_page_is_there() -> None:
    named = set(re.findall(r"\(plots/(.+?)\)", report.PAGE.read_text()))
    assert named == {path.name for path in report.PLOTS.iterdir()}


@pytest.mark.parametrize(("median", "verdict"), [(2.0, True), (2.1, False), (None, None)])
def test_a_bar_is_judged_by_its_median(median: float | None, verdict: bool | None) -> None:
    measured = None if median is None else figure([median])
    assert Bar(demand="", limit=2.0, unit="", measured=measured).met is verdict


# How it is measured.


def test_figures() -> None:
    assert figure([3.0]).median == 3
    found = figure([1.0, 2.0, 3.0, 4.0, 5.0])
    assert (found.low, found.median, found.high) == (2, 3, 4)
    assert added([3.0, 5.0], [1.0, 1.0]).median == 3
    assert ratio([3.0, 5.0], [1.0, 5.0]).median == 2


def test_none_is_always_behind_the_same_one() -> None:
    assert [turned("abc", number) for number in range(3)] == [
        ["a", "b", "c"],
        ["b", "c", "a"],
        ["c", "a", "b"],
    ]


def test_what_fails_once_is_left_out() -> None:
    calls = []

    def one(name: str) -> dict[str, dict[str, list[float]]]:
        calls.append(name)
        if name == "b" and calls.count("b") == 2:
            raise MeasureError("gone")
        return {"cost": {"x": [1.0]}}

    found, missing = alternate(["a", "b"], 3, one)
    assert missing == {"b": "gone"}
    assert found["a"] == {"cost": {"x": [1.0, 1.0, 1.0]}}
    assert calls.count("b") == 2


@pytest.mark.parametrize(
    ("module", "options", "why"),
    [
        ("benchmarks.overhead", {"candidate": "nobody"}, "nobody"),
        ("benchmarks.nothing", {}, "No module named benchmarks.nothing"),
    ],
    ids=["raises", "cannot be imported"],
)
def test_a_process_that_fails_says_why(module: str, options: dict[str, str], why: str) -> None:
    with pytest.raises(MeasureError, match=why):
        child(module, options, within=60)


def test_a_process_that_hangs_is_ended() -> None:
    options = {"connections": 1, "seconds": 60, "watched": True}
    with pytest.raises(MeasureError, match="longer than 1 s"):
        child("benchmarks.watchdog_cost", options, within=1)


def test_a_background_process_that_does_not_start_is_noticed() -> None:
    with (
        pytest.raises(MeasureError, match="did not start"),
        background("benchmarks.nothing", {}, {}),
    ):
        pass
