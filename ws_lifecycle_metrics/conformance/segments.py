"""The segments of a service by what becomes of them, without changing anything."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from ..store.directory import Directory, is_held
from ..store.reader import BadSegment, OtherVersion, check
from ..watchdog.workers import has_ended


@dataclass(slots=True)
class Segments:
    """How many are alive and dead, and of those that cannot be read, their names.

    Neither is one whose loop has ended in a process that lives on.
    `left` and `running` are of another version, their workers have ended or run; `damaged` tells
    what is wrong with each.
    """

    alive: int = 0
    dead: int = 0
    left: list[str] = field(default_factory=list)
    running: int = 0
    damaged: dict[str, str] = field(default_factory=dict)


def look_at_segments(directory: Directory) -> Segments:
    """Sort the segments by their locks and their headers."""
    found = Segments()
    for name in directory.segments():
        try:
            alive = _is_alive(directory, name)
            ended = has_ended(check(directory, name))
        except FileNotFoundError:
            continue  # folded meanwhile
        except OtherVersion:
            found.running += alive
            found.left += [] if alive else [name]
        except BadSegment as error:
            found.damaged[name] = str(error)
        except OSError as error:
            found.damaged[name] = str(error.strerror)
        else:
            found.alive += alive and not ended
            found.dead += not alive
    return found


def _is_alive(directory: Directory, name: str) -> bool:
    fd = directory.open(name, os.O_RDONLY | os.O_NONBLOCK)
    try:
        return is_held(fd)
    finally:
        os.close(fd)
