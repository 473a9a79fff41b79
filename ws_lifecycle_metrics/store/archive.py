"""The counts of workers that are gone, so that no total ever falls.

A dead worker's segment is folded into one file: written beside the old one, renamed over it,
and only then the segment is removed. Readers take no lock: they read the archive, the
segments and the archive again, and begin anew when its generation has changed meanwhile.
"""

from __future__ import annotations

import json
import logging
import os
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NoReturn

from ..catalog import METRICS
from . import layout as at
from .directory import Directory
from .layout import Status, words_of
from .reader import BadSegment, Contents, Reader, check_file
from .totals import Totals, add_segment

NAME = "archive.json"
FORMAT = 1

logger = logging.getLogger("ws_lifecycle_metrics")


@dataclass(slots=True)
class Archive:
    """Totals of the folded segments; `folded` are those whose files may still be there.

    `deaths` counts, by slot, the workers that ended without saying so.
    """

    generation: int = 0
    folded: frozenset[int] = frozenset()
    totals: Totals = field(default_factory=dict)
    deaths: Counter[int] = field(default_factory=Counter)


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
    deaths = Counter({int(slot): int(n) for slot, n in dict(data.get("deaths", {})).items()})
    return Archive(int(data["generation"]), folded, totals, deaths)


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
        folded = frozenset(s.uuid for s in dead)
        deaths = old.deaths + unannounced_deaths(dead)
        _write(directory, Archive(old.generation + 1, folded, old.totals, deaths))
        _remove(directory, dead)
    return len(dead)


def unannounced_deaths(segments: list[Contents]) -> Counter[int]:
    """Count, by slot, the dead workers that neither closed nor began to shut down."""
    return Counter(
        s.header[at.SLOT]
        for s in segments
        if not s.alive
        and s.header[at.STATUS] != Status.CLOSED
        and not s.header[at.DRAINING_SINCE]
        and s.header[at.SLOT] != at.NO_SLOT
    )


def _write(directory: Directory, archive: Archive) -> None:
    data = {
        "format": FORMAT,
        "generation": archive.generation,
        "folded": [f"{uuid:032x}" for uuid in archive.folded],
        "deaths": {str(slot): number for slot, number in archive.deaths.items()},
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
        directory.remove(contents.name)
