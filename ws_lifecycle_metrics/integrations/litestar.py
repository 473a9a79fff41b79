"""Litestar: the route template from the scope, once routing has taken place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def route_template(scope: Mapping[str, Any]) -> str | None:
    """Return the matched handler's path with its parameters' names, such as `/chat/{room}`."""
    template = scope.get("path_template")
    return template if isinstance(template, str) and template else None
