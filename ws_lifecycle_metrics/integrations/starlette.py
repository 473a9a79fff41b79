"""Starlette and FastAPI: the route template from the scope, once routing has taken place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

_MOST_LAYERS = 10
_MOST_KNOWN = 1024

# By identity, since routes have no hash; the object is kept, so that its id stays its own.
_known: dict[int, tuple[object, str | None]] = {}


def route_template(scope: Mapping[str, Any]) -> str | None:
    """Return the matched route's path with its parameters' names, such as `/chat/{room}`.

    The paths below which it is mounted stand before it.
    """
    matched = scope.get("route") or scope.get("endpoint")
    if matched is None:
        return None
    known = _known.get(id(matched))
    if known is None or known[0] is not matched:
        if len(_known) >= _MOST_KNOWN:
            _known.clear()
        known = _known[id(matched)] = (matched, _find(scope, matched))
    return known[1]


def _find(scope: Mapping[str, Any], matched: object) -> str | None:
    """Look `matched` up in the application's table, where its mounts' templates stand too."""
    found = _search(getattr(scope.get("app"), "routes", None) or (), matched, "", _MOST_LAYERS)
    if found is None:  # FastAPI makes routes for a request that are in no table
        path = getattr(matched, "path", None)
        found = path if isinstance(path, str) else None
    return found


def _search(routes: Iterable[Any], matched: object, above: str, layers: int) -> str | None:
    for route in routes:
        path = above + str(getattr(route, "path", ""))
        # Not every router names its route in the scope; then the endpoint stands for it.
        if route is matched or getattr(route, "endpoint", route) is matched:
            return path
        below = getattr(route, "routes", None) if layers else None
        found = _search(below or (), matched, path, layers - 1)
        if found is not None:
            return found
        if getattr(route, "app", None) is matched:
            return path
    return None
