"""The counts of workers that are gone, so that no total ever falls.

A dead worker's segment is folded into one file: written beside the old one, renamed over it,
and only then the segment is removed. Killed at any step, nothing is lost or counted twice.
Readers take no lock: they read the archive, the segments and the archive again, and begin anew
when its generation has changed meanwhile.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import time
from collections import Counter, defaultdict
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

from ..catalog import METRICS, Metric
from ..labels import Cap, safe_label
from . import layout as at
from . import outdated
from .directory import OUT_OF_MEANS, Directory, try_lock
from .layout import Status, words_of
from .reader import BadSegment, Contents, Reader, check_file
from .totals import Totals, add, add_segment

NAME = "archive.json"
FORMAT = 1
MAX_BYTES = 1 << 22
MAX_WORD = 1 << 96  # above any sum of 64-bit words, and a float can hold it
MAX_NAMES = 1000
"""Values kept apart of a label that the workers fill, such as the route; more become `other`."""
DRAFT_SECONDS = 60
"""Age above which a half-made segment is taken for one whose maker was killed."""

logger = logging.getLogger("ws_lifecycle_metrics")


@dataclass(slots=True)
class Archive:
    """Totals of the folded segments; `folded` are those whose files may still be there.

    `deaths` counts, by slot, the workers that ended without saying so; `since` is when the first
    of all was made, Unix time in ns; 0: unknown.
    """

    generation: int = 0
    folded: frozenset[int] = frozenset()
    totals: Totals = field(default_factory=dict)
    deaths: Counter[int] = field(default_factory=Counter)
    since: int = 0


def exists(directory: Directory) -> bool:
    """Whether the segment of any worker was ever folded here."""
    return NAME in os.listdir(directory.fd)


def load(directory: Directory) -> Archive:
    """Return the archive, an empty one where there is none; raises `BadSegment`."""
    try:
        fd = directory.open(NAME, os.O_RDONLY | os.O_NONBLOCK)
    except FileNotFoundError:
        return Archive()
    except OSError as error:
        if error.errno in OUT_OF_MEANS:
            raise
        raise BadSegment(str(error.strerror)) from error
    try:
        size = check_file(os.fstat(fd))
        if size > MAX_BYTES:
            raise BadSegment(f"larger than {MAX_BYTES} bytes")
        text = os.pread(fd, size, 0)
    finally:
        os.close(fd)
    try:
        return _decode(json.loads(text, parse_constant=_refuse))
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise BadSegment(f"not an archive: {error}") from error


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no count")


def _decode(data: dict[str, Any]) -> Archive:
    if data["format"] != FORMAT:
        raise ValueError(f"format {data['format']!r}")
    if not _is_count(data["generation"]):
        raise ValueError("generation")
    totals: Totals = {}
    for name, labels, words in data["totals"]:
        metric = METRICS.get(name)
        if metric is not None and _fits(metric, labels, words):
            totals[name, tuple(map(safe_label, labels))] = list(words)
    folded = frozenset(int(uuid, 16) for uuid in data["folded"])
    deaths = Counter({int(slot): n for slot, n in dict(data.get("deaths", {})).items()})
    if not all(map(_is_count, (*deaths, *deaths.values()))):
        raise ValueError("deaths")
    since = data.get("since", 0)
    since = since if _is_count(since) else 0
    return Archive(data["generation"], folded, totals, deaths, since)


def _own_labels(metric: Metric) -> int:
    """Return how many labels, the first ones, take values that are not known in advance."""
    return len(metric.labels) - len(metric.series[0])


def _is_count(word: object) -> bool:
    return type(word) is int and 0 <= word < MAX_WORD


def _fits(metric: Metric, labels: list[Any], words: list[Any]) -> bool:
    """Whether labels and words are those of a series that this version knows."""
    own = _own_labels(metric)
    return (
        len(labels) == len(metric.labels)
        and tuple(labels[own:]) in metric.series
        and len(words) == words_of(metric)
        and all(map(_is_count, words))
    )


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


def left_over(directory: Directory, archive: Archive) -> bool:
    """Whether a segment is still there that was folded: who folded it was killed meanwhile."""
    folded = {f"{uuid:032x}" for uuid in archive.folded}
    names = directory.segments() if folded else []
    return any(name.partition("-")[2].partition(".")[0] in folded for name in names)


def fold(directory: Directory, reader: Reader) -> int:
    """Fold the segments of dead workers; return how many.

    Any process may call it at any time; where another is folding, nothing is done. Where there
    is no room for the archive the segments stay, and count as they did.
    """
    try:
        with directory.exclusive() as locked:
            return _fold_locked(directory, reader) if locked else 0
    except OSError as error:
        reader.warn("the archive of dead workers", f"is not written: {error.strerror}")
        return 0


def absorb(directory: Directory, contents: Contents) -> None:
    """Add what a worker has counted in memory of its own; the caller holds the directory's lock."""
    old = _load_or_set_aside(directory)
    made = filter(None, (old.since, int(contents.header[at.CREATED_WALL])))
    new = replace(old, generation=old.generation + 1, since=min(made, default=0))
    directory.replace(NAME, _fitted(new, [old.totals, _totals_of(contents)]))


def _load_or_set_aside(directory: Directory) -> Archive:
    try:
        return load(directory)
    except BadSegment as error:
        aside = f"archive.bad-{time.time_ns()}"
        directory.rename(NAME, aside)
        logger.warning("%s is set aside as %s: %s", NAME, aside, error)
        return Archive()


def _fold_locked(directory: Directory, reader: Reader) -> int:
    old = _load_or_set_aside(directory)
    _remove_drafts(directory)
    dead = [s for s in reader.read(directory) if not s.alive]
    outdated.remove(directory, reader.outdated)
    # Left by a fold that was killed between renaming and removing.
    _remove(directory, [s for s in dead if s.uuid in old.folded])
    dead = [s for s in dead if s.uuid not in old.folded]
    if dead:
        made = [old.since, *(int(s.header[at.CREATED_WALL]) for s in dead)]
        new = Archive(
            generation=old.generation + 1,
            folded=frozenset(s.uuid for s in dead),
            deaths=old.deaths + unannounced_deaths(dead),
            since=min(filter(None, made), default=0),
        )
        directory.replace(NAME, _fitted(new, [old.totals, *map(_totals_of, dead)]))
        _remove(directory, dead)
    return len(dead)


def unannounced_deaths(segments: list[Contents]) -> Counter[int]:
    """Count, by slot, the dead workers that neither closed nor began to shut down."""
    return Counter(
        s.header[at.SLOT]
        for s in segments
        if not s.alive and s.header[at.STATUS] != Status.CLOSED and not s.header[at.DRAINING_SINCE]
    )


def _totals_of(contents: Contents) -> Totals:
    totals: Totals = {}
    add_segment(totals, contents)
    return totals


def _bounded_sum(parts: list[Totals], names: int) -> Totals:
    """Add up totals: each worker kept to its caps, but over time they may all differ."""
    caps: dict[str, Cap] = defaultdict(lambda: Cap(names))
    whole: Totals = {}
    for part in parts:
        for (name, labels), words in part.items():
            metric = METRICS[name]
            own = _own_labels(metric)
            bounded = [caps[n].fold(v) for n, v in zip(metric.labels[:own], labels, strict=False)]
            add(whole, metric, (*bounded, *labels[own:]), words)
    return whole


def _remove_drafts(directory: Directory) -> None:
    """Remove what workers have left that were killed while they made their segment."""
    for name in directory.drafts():
        with suppress(OSError):
            fd = directory.open(name, os.O_RDONLY | os.O_NONBLOCK)
            try:
                old = time.time() - os.fstat(fd).st_mtime > DRAFT_SECONDS
                if old and try_lock(fd, exclusive=True):
                    os.unlink(name, dir_fd=directory.fd)
            finally:
                os.close(fd)


def _fitted(archive: Archive, parts: list[Totals]) -> bytes:
    """Encode the archive with the sum of `parts`, by as many names as a reader takes."""
    names = MAX_NAMES
    while True:
        text = _encode(replace(archive, totals=_bounded_sum(parts, names)))
        if len(text) <= MAX_BYTES:
            return text
        if names == 1:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        names //= 2


def _encode(archive: Archive) -> bytes:
    data = {
        "format": FORMAT,
        "generation": archive.generation,
        "since": archive.since,
        "folded": [f"{uuid:032x}" for uuid in archive.folded],
        "deaths": {str(slot): number for slot, number in archive.deaths.items()},
        "totals": [[name, labels, words] for (name, labels), words in archive.totals.items()],
    }
    return json.dumps(data, separators=(",", ":")).encode()


def _remove(directory: Directory, segments: list[Contents]) -> None:
    for contents in segments:
        directory.remove(contents.name)
