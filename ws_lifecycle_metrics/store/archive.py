"""The counts of workers that are gone, so that no total ever falls.

A dead worker's segment is folded into one file: written beside the old one, renamed over it,
and only then the segment is removed. Readers take no lock: they read the archive, the
segments and the archive again, and begin anew when its generation has changed meanwhile.
"""

from __future__ import annotations

import json
import logging
import os
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NoReturn

from ..catalog import METRICS
from .directory import Directory
from .layout import words_of
from .reader import BadSegment, Contents, Reader, check_file
from .totals import Totals, add_segment

NAME = "archive.json"
FORMAT = 1

logger = logging.getLogger("ws_lifecycle_metrics")


@dataclass(slots=True)
class Archive:
    """Totals of the folded segments; `folded` are those whose files may still be there."""

    generation: int = 0
    folded: frozenset[int] = frozenset()
    totals: Totals = field(default_factory=dict)


def load(directory: Directory) -> Archive:
    """Return the archive, an empty one where there is none; raises `BadSegment`."""
    try:
        fd = directory.open(NAME, os.O_RDONLY | os.O_NONBLOCK)
    except FileNotFoundError:
        return Archive()
    except OSError as error:
        raise BadSegment(str(error.strerror)) from error
    with os.fdopen(fd, "rb") as file:
        check_file(os.fstat(fd))
        text = file.read()
    try:
        return _decode(json.loads(text, parse_constant=_refuse))
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise BadSegment(f"not an archive: {error}") from error


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no count")


def _decode(data: dict[str, Any]) -> Archive:
    if data["format"] != FORMAT:
        raise ValueError(f"format {data['format']!r}")
    totals: Totals = {}
    for name, labels, words in data["totals"]:
        metric = METRICS.get(name)
        if metric is None or len(labels) != len(metric.labels):
            continue  # another version's metric
        if len(words) == words_of(metric) and all(
            type(word) is int and word >= 0 for word in words
        ):
            totals[name, tuple(map(str, labels))] = list(words)
    folded = frozenset(int(uuid, 16) for uuid in data["folded"])
    return Archive(int(data["generation"]), folded, totals)


def read(directory: Directory, reader: Reader) -> tuple[Archive, list[Contents]]:
    """Return archive and segments that belong together: nothing twice, nothing missing."""
    archive = _load_or_name(directory, reader)
    for _ in range(50):
        segments = reader.read(directory)
        after = _load_or_name(directory, reader)
        if after.generation == archive.generation:
            break
        archive = after
    return archive, [s for s in segments if s.uuid not in archive.folded]


def _load_or_name(directory: Directory, reader: Reader) -> Archive:
    try:
        return load(directory)
    except BadSegment as error:
        reader.skip(NAME, str(error))
        return Archive()


def fold(directory: Directory) -> int:
    """Fold the segments of dead workers; return how many.

    Any process may call it at any time; where another is folding, nothing is done.
    """
    with directory.exclusive() as locked:
        return _fold_locked(directory) if locked else 0


def _fold_locked(directory: Directory) -> int:
    try:
        old = load(directory)
    except BadSegment as error:
        logger.warning("%s is set aside as archive.bad: %s", NAME, error)
        _rename(directory, NAME, "archive.bad")
        old = Archive()
    dead = [s for s in Reader().read(directory) if not s.alive]
    # Left by a fold that was killed between renaming and removing.
    _remove(directory, [s for s in dead if s.uuid in old.folded])
    dead = [s for s in dead if s.uuid not in old.folded]
    if dead:
        for contents in dead:
            add_segment(old.totals, contents)
        _write(directory, Archive(old.generation + 1, frozenset(s.uuid for s in dead), old.totals))
        _remove(directory, dead)
    return len(dead)


def _write(directory: Directory, archive: Archive) -> None:
    data = {
        "format": FORMAT,
        "generation": archive.generation,
        "folded": [f"{uuid:032x}" for uuid in archive.folded],
        "totals": [[name, labels, words] for (name, labels), words in archive.totals.items()],
    }
    draft = f".{NAME}"
    with suppress(FileNotFoundError):
        os.unlink(draft, dir_fd=directory.fd)
    fd = directory.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    with os.fdopen(fd, "w") as file:
        json.dump(data, file, separators=(",", ":"))
    _rename(directory, draft, NAME)


def _rename(directory: Directory, old: str, new: str) -> None:
    os.rename(old, new, src_dir_fd=directory.fd, dst_dir_fd=directory.fd)


def _remove(directory: Directory, segments: list[Contents]) -> None:
    for contents in segments:
        with suppress(FileNotFoundError):
            os.unlink(contents.name, dir_fd=directory.fd)
