"""Which server runs the application, told by what it hands over; never raises."""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from ..advisories import advisories_for
from ..telemetry.logs import log_advisories

SERVERS = ("granian", "uvicorn", "hypercorn", "daphne", "gunicorn")

# Quart imports Hypercorn for its `run`; Django's runserver and the tests of Channels use Daphne.
_IMPORTED_BY = {"hypercorn": ("quart",), "daphne": ("daphne.apps", "channels.testing")}


def detect(receive: Any, send: Any) -> tuple[str, str] | None:
    """Return the server's package and version, or None.

    Most servers hand over bound methods of their own classes; Hypercorn and Daphne hand over a
    queue's, and their own only as `send`. Behind an outer middleware it is the only server that is
    imported, unless a framework has imported it.
    """
    owners = (receive, send, getattr(send, "func", None))
    found = next((name for name in map(_package, owners) if name in SERVERS), None)
    if found is None:
        imported = [name for name in SERVERS if name in sys.modules]
        found = imported[0] if len(imported) == 1 else None
        if any(name in sys.modules for name in _IMPORTED_BY.get(found or "", ())):
            found = None
    if found is None:
        return None
    try:
        return found, version(found)
    except PackageNotFoundError:
        return None


def advise(receive: Any, send: Any) -> None:
    """Log, once, what is known to be wrong with the server, in the worker that it runs."""
    found = detect(receive, send)
    if found is not None:
        log_advisories(*found, advisories_for(*found))


def _package(call: Any) -> str:
    owner = getattr(call, "__self__", None)
    module = type(owner).__module__ if owner is not None else getattr(call, "__module__", "")
    # Granian's class lives in `_granian` in some versions, and in `granian._granian` in others.
    return str(module).partition(".")[0].lstrip("_")
