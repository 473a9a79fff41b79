"""Where a coroutine or a thread waits, as lines "file:line:function": never a value of theirs.

The chain of awaits is followed from the awaitable that the application returned, so that no
task is touched: the tasks of some servers crash the process when they are asked.
"""

from __future__ import annotations

import gc
import sys
import sysconfig
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from ..labels import printable

MOST_FRAMES = 40
MOST_AWAITS = 200
_OWN = str(Path(__file__).resolve().parents[1])
_LIBRARIES = tuple(
    {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
)
# Iterators that hide the generator or coroutine which they drive.
_WRAPPERS = frozenset(
    {"async_generator_asend", "async_generator_athrow", "coroutine_wrapper", "anext_awaitable"}
)
_FRAMES = ("cr_frame", "gi_frame", "ag_frame")
_AWAITED = ("cr_await", "gi_yieldfrom", "ag_await")

Frames = tuple[str, ...]


def chain(awaitable: Any) -> tuple[Frames, str]:
    """Return where `awaitable` waits, outermost first, and the last line of the user's code.

    Both are empty for an object that shows no frames.
    """
    frames: list[FrameType] = []
    seen = awaitable
    for _ in range(MOST_AWAITS):
        seen = _unwrap(seen)
        frame = _first(seen, _FRAMES)
        if frame is None:
            break
        frames.append(frame)
        seen = _first(seen, _AWAITED)
    return _lines([(frame.f_code, frame.f_lineno) for frame in frames[-MOST_FRAMES:]])


def _first(thing: Any, names: tuple[str, ...]) -> Any:
    return next((found for name in names if (found := getattr(thing, name, None))), None)


def _unwrap(thing: Any) -> Any:
    if type(thing).__name__ not in _WRAPPERS:
        return thing
    hidden = (found for found in gc.get_referents(thing) if _first(found, _FRAMES) is not None)
    return next(hidden, None)


def thread_stack(thread: int) -> tuple[Frames, str]:
    """Return where a thread of this process is, by its `threading.get_ident()`."""
    # Not for threads that ended: their entry is gone, and so is the answer.
    frame: FrameType | None = sys._current_frames().get(thread)
    found: list[tuple[CodeType, int]] = []
    while frame is not None and len(found) < MOST_FRAMES:
        found.append((frame.f_code, frame.f_lineno))
        frame = frame.f_back
    return _lines(found[::-1])


def _lines(places: list[tuple[CodeType, int]]) -> tuple[Frames, str]:
    lines = tuple(_line(code, line) for code, line in places)
    own = [text for text, (code, _) in zip(lines, places, strict=True) if is_users(code)]
    return lines, own[-1] if own else ""


def _line(code: CodeType, line: int | None) -> str:
    # A path may hold anything but NUL, and this ends in logs.
    return printable(f"{code.co_filename}:{line or 0}:{code.co_qualname}")


def is_users(code: CodeType) -> bool:
    """Whether the code is neither Python's, nor an installed library's, nor ours."""
    name = code.co_filename
    if name.startswith(("<", _OWN)) or "site-packages" in name or "dist-packages" in name:
        return False
    return not name.startswith(_LIBRARIES)
