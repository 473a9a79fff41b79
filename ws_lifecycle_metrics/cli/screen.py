"""Where tables go: a terminal, or plain text in full width for a file or a pipe."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

WIDE = 110
"""Columns from which a table needs no abbreviations."""
UNLIMITED = 10_000


def show(make: Callable[[int], Table]) -> None:
    """Print the table that is made for a width; nothing is cut for a program that reads it."""
    from rich.console import Console

    console = Console(highlight=False, markup=False, emoji=False)
    if console.is_terminal:
        console.print(make(console.width))
        return
    console.width = UNLIMITED
    with console.capture() as capture:
        console.print(make(console.width))
    click.echo("\n".join(line.rstrip() for line in capture.get().splitlines()))


def coloured() -> bool:
    """Tell if lines have colours: as the tables decide it, which heed NO_COLOR and TERM."""
    from rich.console import Console

    console = Console()
    return console.color_system is not None and not console.no_color


def text(value: object, style: str = "") -> Text:
    """Return a value that others chose, harmless for a terminal, on one line."""
    from rich.text import Text

    from ..labels import safe_label

    return Text(safe_label(str(value)), style=style, no_wrap=True, overflow="ellipsis")
