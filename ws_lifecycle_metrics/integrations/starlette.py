"""Starlette and FastAPI: the route template from the scope, once routing has taken place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_MOST_LAYERS = 10


def route_template(scope: Mapping[str, Any]) -> str | None:
    """Return the matched route's path with its parameters' names, such as `/chat/{room}`."""
    template = getattr(scope.get("route"), "path", None)
    if not isinstance(template, str):
        return _by_endpoint(scope)
    return _mount(scope, template) + template


def _by_endpoint(scope: Mapping[str, Any]) -> str | None:
    """Look the endpoint up in the application's table: not every router names its route."""
    endpoint = scope.get("endpoint")
    if endpoint is None:
        return None
    return _search(getattr(scope.get("app"), "routes", ()), endpoint, "", _MOST_LAYERS)


def _search(routes: Any, endpoint: object, above: str, layers: int) -> str | None:
    for route in routes or ():
        path = above + str(getattr(route, "path", ""))
        if endpoint in (getattr(route, "endpoint", None), getattr(route, "app", None)):
            return path
        found = (
            _search(getattr(route, "routes", ()), endpoint, path, layers - 1) if layers else None
        )
        if found is not None:
            return found
    return None


def _mount(scope: Mapping[str, Any], template: str) -> str:
    """Return the path below which a sub-application is mounted, if it has no parameters.

    `root_path` holds the client's spelling; only one that is in the application's own table
    is a template.
    """
    root = str(scope.get("root_path", ""))[len(str(scope.get("app_root_path", ""))) :]
    if not root or root == template:
        return ""
    routes = getattr(scope.get("app"), "routes", ())
    return root if any(getattr(route, "path", None) == root for route in routes) else ""
