"""The documentation's tables say what the code says, and its links lead somewhere."""

from __future__ import annotations

import re

import pytest

from docs import generate
from ws_lifecycle_metrics.catalog import METRICS
from ws_lifecycle_metrics.protocol import RULES

DOCUMENTS = [generate.ROOT / "README.md", *(generate.ROOT / name for name in generate.PAGES)]


def test_generated_tables_are_current():
    stale = [str(path.relative_to(generate.ROOT)) for path in generate.stale()]
    assert not stale, f"run make docs: {stale}"


def test_check_tells_and_does_not_write(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(generate, "ROOT", tmp_path)
    (tmp_path / "docs").mkdir()
    readme = tmp_path / "README.md"
    readme.write_text("<!-- generated: number of rules -->0<!-- end: number of rules -->\n")
    assert generate.main(["--check"]) == 1
    assert "README.md: is not current" in capsys.readouterr().out
    assert generate.main([]) == 0
    assert f">{len(RULES)}<" in readme.read_text()
    assert generate.main(["--check"]) == 0
    assert generate.main(["--chekc"]) == 2


def test_an_unknown_part_is_an_error():
    with pytest.raises(KeyError):
        generate.fill("<!-- generated: nothing --><!-- end: nothing -->")


def test_parts_of_the_readme_are_closed():
    text = (generate.ROOT / "README.md").read_text()
    opened = re.findall(r"<!-- generated: (.+?) -->", text)
    assert sorted(opened) == sorted(re.findall(r"<!-- end: (.+?) -->", text))
    assert set(opened) == set(generate.BLOCKS)


def test_every_rule_and_metric_is_there():
    rules, metrics = generate.rules_page(), generate.metrics_page()
    assert [rule for rule in RULES if f"### `{rule}`\n" not in rules] == []
    assert [m.name for m in METRICS.values() if f"| `{m.prometheus}` |" not in metrics] == []


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a message was sent.", "A message was sent."),
        ("ASGI WebSocket, Connect: one", "ASGI WebSocket, Connect: one."),
        ("receive() was called", "receive() was called."),
        ("", "."),
    ],
    ids=["words", "a name in capitals", "code", "nothing"],
)
def test_a_sentence_keeps_its_names(text, sentence):
    assert generate._sentence(text) == sentence


def test_cells_keep_their_table():
    assert generate.table(["a"], [["x|y\nz"]]).splitlines()[-1] == r"| x\|y z |"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document):
    text = document.read_text()
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if target.startswith("#"):
            assert target[1:] in anchors
        else:
            assert (document.parent / target).exists(), target


def test_the_index_of_examples_has_each_with_its_command():
    examples = generate.ROOT / "examples"
    index = (examples / "README.md").read_text()
    rows = dict(re.findall(r"^\| \[(\w+)\]\(\1\) \|.*\| `([^`]+)` \|$", index, re.MULTILINE))
    folders = {place.name for place in examples.iterdir() if any(place.glob("[!_]*.*"))}
    assert set(rows) == folders
    for name, command in rows.items():
        if "examples." in command:
            assert f"    {command}\n" in (examples / name / "app.py").read_text()
