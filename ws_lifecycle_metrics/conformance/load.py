"""The user's application, from its `module:attribute`."""

from __future__ import annotations

import importlib
import inspect
from typing import Any


def load(target: str) -> Any:
    """Import `module:attribute`, perhaps dotted; of `module:factory()` what the call returns."""
    module, _, path = target.removesuffix("()").partition(":")
    found: Any = importlib.import_module(module)
    for name in (path or "app").split("."):
        found = getattr(found, name)
    return found() if target.endswith("()") else found


def unfit(application: Any) -> str | None:
    """Return why this cannot be served, or None."""
    if not callable(application):
        return "it is not callable"
    takes_none, takes_three = (_takes(application, count) for count in (0, 3))
    if takes_none and not takes_three:
        return "it takes no arguments, so it may make the application: add --factory"
    return None


def _takes(function: Any, count: int) -> bool:
    try:
        # Without what it wraps: a decorator may call that otherwise than it is called.
        inspect.signature(function, follow_wrapped=False).bind(*[None] * count)
    except ValueError:
        return True  # nobody can tell
    except TypeError:
        return False
    return True
