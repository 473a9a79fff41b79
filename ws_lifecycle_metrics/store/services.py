"""Which services workers have used in a directory: a name that is wrong looks like an idle one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..config import Config, is_service_name
from ..labels import safe_label
from . import archive
from .directory import Directory, DirectoryError, DirectoryMissingError, service_path

MOST_LOOKED_AT = 1000
MOST_NAMED = 10


@dataclass(frozen=True, slots=True)
class Unused:
    """A service that no worker has used, and those beside it that workers have."""

    text: str
    others: tuple[str, ...] = ()


def never_used(config: Config) -> Unused | None:
    """Say it if no worker has used the service so far; None: one has, or nobody can tell.

    Only looks: nothing is made.
    """
    path = service_path(config.directory, config.service)
    if _was_used(path, unknown=True):
        return None
    text = f"no worker has used the service {config.service!r} in {safe_label(str(path.parent))}"
    if not path.parent.is_dir():
        return Unused(f"{text}: there is no such directory")
    others = tuple(_used_in(path.parent))
    if not others:
        return Unused(f"{text}, nor any other")
    more = len(others) - MOST_NAMED
    named = ", ".join(others[:MOST_NAMED])
    return Unused(f"{text}; there are: {named}{f' and {more} more' if more > 0 else ''}", others)


def _used_in(base: Path) -> Iterator[str]:
    try:
        # A name that no service can have need not be told: no option would take it.
        names = sorted(filter(is_service_name, os.listdir(base)))
    except OSError:
        return
    yield from (name for name in names[:MOST_LOOKED_AT] if _was_used(base / name, unknown=False))


def _was_used(path: Path, *, unknown: bool) -> bool:
    """Whether a worker has left something there; `unknown`: the answer where nobody can tell."""
    try:
        with Directory(path) as directory:
            return bool(directory.segments()) or archive.exists(directory)
    except DirectoryMissingError:
        return False
    except (DirectoryError, OSError):
        return unknown
