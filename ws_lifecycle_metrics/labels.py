"""Label values that are bounded and harmless before anything stores them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from unicodedata import category

OTHER = "other"
"""The value that everything beyond a cap is folded into."""

MAX_LENGTH = 128

TraceIds = tuple[int, int]
"""Trace id and span id."""

# Control, format (bidi overrides among them), surrogate, private-use and unassigned
# characters, and the line and paragraph separators: they break a terminal, a log line or
# the exposition's UTF-8.
_UNSAFE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def safe_label(value: object) -> str:
    """Return a printable, valid UTF-8 text of at most 128 characters for `value`.

    Anything but a str becomes `other`; unsafe characters become their Python escapes.
    """
    if not isinstance(value, str):
        return OTHER
    return printable(value[:MAX_LENGTH])[:MAX_LENGTH]


def printable(text: str) -> str:
    """Return a text made harmless as by `safe_label`, of any length."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(map(_escape, text))


def safe_end(text: str) -> str:
    """Return a text made harmless as by `safe_label`; of a longer one the end, after `…`."""
    safe = printable(text[-MAX_LENGTH:])
    if max(len(text), len(safe)) <= MAX_LENGTH:
        return safe
    return "…" + safe[1 - MAX_LENGTH :]


def _escape(character: str) -> str:
    if category(character) not in _UNSAFE:
        return character
    return character.encode("unicode_escape").decode("ascii")


def first_is(names: Sequence[str]) -> str:
    """Return the subject of a line on some names and its verb: "a is" or "a and 3 more are"."""
    first = safe_label(names[0])
    return f"{first} is" if len(names) == 1 else f"{first} and {len(names) - 1} more are"


def plural(number: int, noun: str) -> str:
    """Return a number and its noun: "1 worker" or "2,000 workers"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def trace_fields(trace: TraceIds | None) -> dict[str, str]:
    """Return the fields that tie a log record to a trace; none without one."""
    if trace is None:
        return {}
    trace_id, span_id = trace
    return {"trace_id": f"{trace_id:032x}", "span_id": f"{span_id:016x}"}


class Cap:
    """Admits the reserved values and the first ones that come, up to a limit.

    Reserved values have their places from the start, so that no client can take them.
    `on_overflow` is called for each value that is folded into `other`.
    """

    def __init__(
        self, limit: int, reserved: Iterable[str] = (), on_overflow: Callable[[], object] = int
    ) -> None:
        self._admitted = {safe_label(value) for value in reserved}
        self._limit = max(limit, len(self._admitted))
        self._on_overflow = on_overflow

    def fold(self, value: object) -> str:
        """Return the value to store: `value` made safe, or `other`."""
        label = safe_label(value)
        if label in self._admitted or label == OTHER:
            return label
        if len(self._admitted) < self._limit:
            self._admitted.add(label)
            return label
        self._on_overflow()
        return OTHER
