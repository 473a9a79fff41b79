"""Files that are replaced as a whole, and a look that leaves nothing behind."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from ws_lifecycle_metrics.store.directory import Directory, DirectoryError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NAME = "told.json"


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Directory]:
    with Directory(tmp_path / "service", create=True) as opened:
        yield opened


def test_who_reads_has_the_old_content_or_the_new_one(directory: Directory) -> None:
    path = directory.path / NAME
    directory.replace(NAME, b"old")
    with path.open("rb") as reading:
        directory.replace(NAME, b"new")
        assert reading.read() == b"old"
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(directory.path) == [NAME]


def test_a_draft_of_one_that_was_killed_is_no_hindrance(directory: Directory) -> None:
    elsewhere = directory.path.parent / "elsewhere"
    elsewhere.write_text("mine")
    (directory.path / f".{NAME}").symlink_to(elsewhere)
    directory.replace(NAME, b"new")
    assert (directory.path / NAME).read_bytes() == b"new"
    assert elsewhere.read_text() == "mine"


def test_what_cannot_be_written_leaves_the_old(directory: Directory) -> None:
    directory.replace(NAME, b"old")
    (directory.path / f".{NAME}").mkdir()
    with pytest.raises(OSError, match=r"directory|permitted"):
        directory.replace(NAME, b"new")
    assert (directory.path / NAME).read_bytes() == b"old"


def make_others(base: Path) -> None:
    base.mkdir()
    base.chmod(0o777)


def make_link(base: Path) -> None:
    (base.parent / "mine").mkdir(mode=0o700)
    base.symlink_to(base.parent / "mine")


@pytest.mark.parametrize(
    ("spoil", "why"), [(make_others, "lets others write"), (make_link, "not a directory")]
)
@pytest.mark.parametrize("create", [True, False])
def test_the_default_base_is_not_taken_from_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: Any, why: str, create: bool
) -> None:
    base = tmp_path / "base"
    monkeypatch.setattr("ws_lifecycle_metrics.store.directory.default_base", lambda: base)
    with Directory(base / "service", create=True):
        pass
    assert base.stat().st_mode & 0o777 == 0o700
    (base / "service").rmdir()
    base.rmdir()
    spoil(base)
    with pytest.raises(DirectoryError, match=why):
        Directory(base / "service", create=create)
    assert os.listdir(base) == []


def test_a_group_that_may_write_is_refused(tmp_path: Path) -> None:
    (tmp_path / "service").mkdir()
    (tmp_path / "service").chmod(0o770)
    with pytest.raises(DirectoryError, match="mode 0770"):
        Directory(tmp_path / "service")


def test_with_a_segment_its_side_files_go_and_their_drafts(directory: Directory) -> None:
    for name in ("1.segment", "1.stacks", ".1.stacks", "1.faults", "2.stacks"):
        (directory.path / name).touch()
    directory.remove("1.segment")
    assert os.listdir(directory.path) == ["2.stacks"]
