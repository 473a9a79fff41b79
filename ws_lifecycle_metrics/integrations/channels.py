"""Django Channels: the route template from the application's own URLRouter.

Channels routes on a copy of the scope, so the scope that a middleware sees never tells.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

_MOST_LAYERS = 20


def find_router(app: object) -> object | None:
    """Return the URLRouter for WebSockets within layers of middleware, or None."""
    for _ in range(_MOST_LAYERS):
        mapping = getattr(app, "application_mapping", None)
        if isinstance(mapping, Mapping):
            app = mapping.get("websocket")
        elif type(app).__name__ == "URLRouter":
            return app
        else:
            inner = (getattr(app, name, None) for name in ("application", "inner", "app"))
            app = next((layer for layer in inner if layer is not None), None)
        if app is None:
            return None
    return None


def route_template(router: object, scope: Mapping[str, Any]) -> str | None:
    """Return the pattern that the connection's path matches, such as `chat/<room>/`."""
    return _match(router, str(scope.get("path", "")).lstrip("/"))


def _match(router: object, path: str) -> str | None:
    for route in getattr(router, "routes", ()):
        match: Callable[[str], Any] = route.pattern.match
        found = match(path)
        if not found:
            continue
        template = str(route.pattern)
        if type(route.callback).__name__ == "URLRouter":
            nested = _match(route.callback, found[0])
            if nested is None:
                continue
            template += nested
        return template
    return None
