"""What the doctor says."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `level` is "ok", "note", "warning" or "error"."""

    subject: str
    level: str
    text: str
    advice: str = ""
    source: str = ""
