"""Files that are replaced as a whole, and a look that leaves nothing behind."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from ws_lifecycle_metrics.store.directory import Directory

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
