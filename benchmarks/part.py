"""What a part of the benchmarks is: how it is measured, and what is shown of its results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from .measure import Effort, Figure

Data = dict[str, Any]
"""What a part has measured: all samples, as they go into its JSON file."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """How a part is to be measured: `sink` is the address that takes what candidates send."""

    effort: Effort
    candidates: Sequence[str]
    sink: str


@dataclass(frozen=True, slots=True)
class Table:
    """A table of the documentation; the first column holds names."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Bar:
    """What is demanded of a figure: at most `limit`; `measured` is None where it is not there."""

    demand: str
    limit: float
    unit: str
    measured: Figure | None

    @property
    def met(self) -> bool | None:
        """Whether the median keeps to it; None where nothing was measured."""
        return None if self.measured is None else self.measured.median <= self.limit


@dataclass(frozen=True, kw_only=True, slots=True)
class Panel:
    """One plot: bars by name, or lines over what `across` says. `name` is part of its file's."""

    name: str
    title: str
    unit: str
    values: Mapping[str, Figure] = field(default_factory=dict)
    points: Mapping[str, Sequence[tuple[float, float]]] = field(default_factory=dict)
    across: str = ""
    log: bool = False


class Part(Protocol):
    """A module of the benchmarks that is a part of `python -m benchmarks`."""

    NAME: str
    TITLE: str
    ABOUT: str

    def measure(self, run: Run) -> Data:
        """Measure it."""

    def tables(self, data: Data) -> list[Table]:
        """Return what stands in the documentation."""

    def bars(self, data: Data) -> list[Bar]:
        """Return what is demanded, in the same order whatever was measured."""

    def panels(self, data: Data) -> list[Panel]:
        """Return what is drawn."""


def shown(figure: Figure, digits: int = 2) -> str:
    """Return a median with its quartiles, as they stand in a table's cell."""
    low, high = (_number(value, digits) for value in (figure.low, figure.high))
    return f"{_number(figure.median, digits)} ({low} to {high})"


def _number(value: float, digits: int) -> str:
    if abs(value) >= 100:
        digits = 0
    elif abs(value) >= 10:
        digits = min(digits, 1)
    return f"{value:,.{digits}f}"
