"""Durations and amounts as a person reads them, in few characters."""

from __future__ import annotations

_UNITS = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))


def duration(seconds: float) -> str:
    """Return the two largest units of a duration: 0.4s, 12s, 3m 12s, 2d 3h."""
    if seconds < 0.95:
        return f"{max(0.0, seconds):.1f}s"
    rest = round(seconds)
    parts: list[str] = []
    for name, size in _UNITS:
        number, remains = divmod(rest, size)
        if number or parts:
            parts.append(f"{number}{name}")
        if len(parts) == 2:
            break
        rest = remains
    return " ".join(part for part in parts if part[:-1] != "0" or len(parts) == 1)


def amount(number: int) -> str:
    """Return a number in at most five characters: 999, 1.2k, 12.3k, 999k, 1.2M."""
    if number < 1000:
        return str(number)
    value = float(number)
    for suffix in "kMGTPE":
        value /= 1000
        if round(value, 1) < 100:
            return f"{value:.1f}{suffix}"
        if round(value) < 1000:
            return f"{value:.0f}{suffix}"
    return f"{value:.0f}E"


def size(number: int) -> str:
    """Return a number of bytes in decimal units: 999 B, 1.2 kB."""
    text = amount(number)
    return f"{text} B" if text.isdigit() else f"{text[:-1]} {text[-1]}B"
