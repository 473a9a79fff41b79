"""What a worker tells of its stacks: a small file beside its segment, for readers to show.

It is bounded, replaced as a whole, and trusted as little as a segment.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import dataclass, field

from ..labels import safe_end
from ..store.directory import SEGMENT_SUFFIX, SIDE_SUFFIXES, Directory
from ..store.reader import BadSegment, check_file

STACKS, FAULTS = SIDE_SUFFIXES
MOST_BYTES = 64 * 1024
MOST_CONNECTIONS = 100
MOST_LINES = 40


@dataclass(frozen=True, slots=True)
class Stack:
    """Where something waits: lines outermost first, and the last one in the user's code."""

    lines: tuple[str, ...] = ()
    where: str = ""


@dataclass(slots=True)
class Stacks:
    """What a worker told: of its loop's thread in its latest stall, and of its connections.

    `faults` are the lines that `faulthandler` wrote, where it is switched on.
    """

    loop: Stack = field(default_factory=Stack)
    loop_beats: int = -1
    connections: dict[int, Stack] = field(default_factory=dict)
    faults: tuple[str, ...] = ()


def side_name(segment: str, suffix: str) -> str:
    """Return the name of a segment's side file."""
    return segment.removesuffix(SEGMENT_SUFFIX) + suffix


def write(directory: Directory, segment: str, stacks: Stacks) -> None:
    """Replace the side file; raises `OSError`."""
    items = list(stacks.connections.items())[:MOST_CONNECTIONS]
    text = _encode(stacks, items)
    while len(text) > MOST_BYTES:
        items = items[: len(items) // 2]
        text = _encode(stacks, items)
    directory.replace(side_name(segment, STACKS), text)


def _encode(stacks: Stacks, items: list[tuple[int, Stack]]) -> bytes:
    data = {
        "beats": stacks.loop_beats,
        "loop": _told(stacks.loop),
        "connections": {str(n): _told(stack) for n, stack in items},
    }
    return json.dumps(data, separators=(",", ":")).encode("ascii")


def _told(stack: Stack) -> list[object]:
    # As short as they are read: the loop's alone could be more than the file may hold.
    return [[*map(safe_end, stack.lines[-MOST_LINES:])], safe_end(stack.where)]


def read(directory: Directory, segment: str) -> Stacks:
    """Return what the worker of a segment told; nothing where there is no file to be trusted."""
    stacks = Stacks()
    text = _content(directory, side_name(segment, STACKS))
    with suppress(ValueError, TypeError, KeyError, AttributeError, RecursionError):
        data = json.loads(text or b"{}")
        for number, told in dict(data.get("connections", {})).items():
            if len(stacks.connections) < MOST_CONNECTIONS:
                stacks.connections[int(number)] = _stack(told)
        stacks.loop, stacks.loop_beats = _stack(data["loop"]), int(data["beats"])
    faults = _content(directory, side_name(segment, FAULTS)).decode("utf-8", "replace")
    stacks.faults = tuple(map(_safe, faults.splitlines()[: 10 * MOST_LINES]))
    return stacks


def _content(directory: Directory, name: str) -> bytes:
    try:
        fd = directory.open(name, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return b""
    try:
        check_file(os.fstat(fd))
        return os.read(fd, MOST_BYTES)
    except (BadSegment, OSError):
        return b""
    finally:
        os.close(fd)


def _stack(told: object) -> Stack:
    if not isinstance(told, list) or len(told) != 2 or not isinstance(told[0], list):
        raise TypeError("not a stack")
    return Stack(tuple(map(_safe, told[0][:MOST_LINES])), _safe(told[1]))


def _safe(line: object) -> str:
    # The end of a line tells more than its start: the path's last parts, the line, the name.
    return safe_end(line) if isinstance(line, str) else ""
