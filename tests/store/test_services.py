"""A service that no worker has used is told from one that is idle."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.store.support import config, die, start_worker
from ws_lifecycle_metrics.store import archive, services
from ws_lifecycle_metrics.store.directory import Directory, service_path
from ws_lifecycle_metrics.store.reader import Reader
from ws_lifecycle_metrics.store.services import never_used

if TYPE_CHECKING:
    from pathlib import Path


def text(base: Path, service: str) -> str:
    unused = never_used(config(base, service=service))
    return "" if unused is None else unused.text


def use(base: Path, *names: str) -> None:
    """Have a worker of each service run and be killed."""
    for name in names:
        die(start_worker(base, service=name))


def test_the_others_are_named_and_nothing_is_made(tmp_path: Path) -> None:
    use(tmp_path, "uv", "gr")
    said = f"no worker has used the service 'nope' in {tmp_path}; there are: gr, uv"
    assert text(tmp_path, "nope") == said
    assert sorted(os.listdir(tmp_path)) == ["gr", "uv"]


def test_where_there_is_none_at_all_it_says_so(tmp_path: Path) -> None:
    said = f"no worker has used the service 'nope' in {tmp_path}"
    assert text(tmp_path, "nope") == f"{said}, nor any other"
    missing = tmp_path / "not" / "yet"
    assert text(missing, "nope").endswith("yet: there is no such directory")
    assert os.listdir(tmp_path) == []


def test_a_directory_that_only_readers_came_to_is_unused(tmp_path: Path) -> None:
    place = service_path(str(tmp_path), "empty")
    Directory(place, create=True).close()
    (place / "lock").touch()
    assert "'empty'" in text(tmp_path, "empty")
    assert text(tmp_path, "nope").endswith("nor any other")


def test_a_service_is_used_though_all_its_workers_are_gone(tmp_path: Path) -> None:
    use(tmp_path, "uv")
    assert text(tmp_path, "uv") == ""
    with Directory(service_path(str(tmp_path), "uv")) as opened:
        assert archive.fold(opened, Reader()) == 1
        assert opened.segments() == []
    assert text(tmp_path, "uv") == ""


def test_nothing_is_said_where_nobody_can_tell(tmp_path: Path) -> None:
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign").chmod(0o777)
    assert text(tmp_path, "foreign") == ""
    assert text(tmp_path, "nope").endswith("nor any other")


def test_the_list_is_bounded_and_harmless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "MOST_NAMED", 2)
    hostile = tmp_path / "base\x1b[31m"
    use(hostile, "a", "b", "c")
    (hostile / "a").rename(hostile / "a\x1b[31m")
    (hostile / "file").touch()
    (hostile / "link").symlink_to(hostile / "b")
    assert text(hostile, "nope").endswith("; there are: b, c")
    use(hostile, "d")
    assert text(hostile, "nope").endswith("; there are: b, c and 1 more")
    assert text(hostile, "nope").isprintable()
