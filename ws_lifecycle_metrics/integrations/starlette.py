"""Starlette and FastAPI: the route template from the scope, once routing has taken place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def route_template(scope: Mapping[str, Any]) -> str | None:
    """Return the matched route's path with its parameters' names, such as `/chat/{room}`."""
    template = getattr(scope.get("route"), "path", None)
    if not isinstance(template, str):
        return None
    return _mount(scope, template) + template


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
