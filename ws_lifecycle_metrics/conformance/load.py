"""The user's application, from its `module:attribute`."""

from __future__ import annotations

import importlib
from typing import Any


def load(target: str) -> Any:
    """Import `module:attribute`; the attribute may be dotted."""
    module, _, path = target.partition(":")
    found: Any = importlib.import_module(module)
    for name in (path or "app").split("."):
        found = getattr(found, name)
    return found
