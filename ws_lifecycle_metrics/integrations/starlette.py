"""Starlette and FastAPI: the route template from the scope, once routing has taken place."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

_MOST_LAYERS = 10
_MOST_KNOWN = 1024

Place = tuple[Any, ...]
"""Where a route stands in a table: the mounts above it, outermost first, and the route."""

# By identity, since routes have no hash; the objects are kept, so that their ids stay their own.
_known: dict[tuple[int, int], tuple[object, object, tuple[Place, ...]]] = {}


def route_template(scope: Mapping[str, Any]) -> str | None:
    """Return the matched route's path with its parameters' names, such as `/chat/{room}`.

    The paths below which it is mounted stand before it.
    """
    matched = scope.get("route") or scope.get("endpoint")
    if matched is None:
        return None
    # The outermost router stays in the scope; an application that is mounted replaces `app`.
    table = scope.get("router") or scope.get("app")
    key = id(table), id(matched)
    known = _known.get(key)
    if known is None or known[0] is not table or known[1] is not matched:
        if len(_known) >= _MOST_KNOWN:
            _known.clear()
        places = tuple(_places(_below(table), matched, (), _MOST_LAYERS))
        known = _known[key] = table, matched, places
    places = known[2]
    if len(places) > 1:  # one router at two mounts, or one endpoint at two paths
        path = _path(scope)
        places = tuple(place for place in places if _leads(place, path)) or places
    if places:
        return "".join(str(getattr(route, "path", "")) for route in places[0])
    return _of_no_table(scope, table, matched)


def _places(routes: Iterable[Any], matched: object, above: Place, layers: int) -> Iterator[Place]:
    for route in routes:
        place = (*above, route)
        # Not every version names the route in the scope; then the endpoint stands for it.
        if route is matched or any(
            getattr(route, name, None) is matched for name in ("endpoint", "app")
        ):
            yield place
        elif layers:
            yield from _places(_below(route), matched, place, layers - 1)


def _below(router: object) -> Iterable[Any]:
    """Return the routes of a router, or of the one that it, or a mount, has behind middlewares."""
    for _ in range(_MOST_LAYERS):
        routes = getattr(router, "routes", None)
        if isinstance(routes, (list, tuple)) and routes:
            return routes
        router = getattr(router, "app", None)
    return ()


def _path(scope: Mapping[str, Any]) -> str:
    """Return the path as the outermost router saw it."""
    path = str(scope.get("path", ""))
    # Starlette moves the root path at each mount, and keeps the one that it began with.
    return path.removeprefix(str(scope.get("app_root_path", scope.get("root_path", ""))))


def _leads(place: Place, path: str) -> bool:
    """Whether `path` leads through these mounts to this route."""
    rest: str | None = path
    for route in place:
        rest = None if rest is None else _beyond(route, rest)
    return rest is not None


def _beyond(route: object, path: str) -> str | None:
    """Return what is left of `path` below a route, None where the route does not match it."""
    regex = getattr(route, "path_regex", None)
    if regex is None:  # by host, for example
        return path
    found = regex.match(path)
    return None if found is None else "/" + found.groupdict().get("path", "")


def _of_no_table(scope: Mapping[str, Any], table: object, matched: object) -> str | None:
    """Return the template of a route that FastAPI made for a request."""
    path = getattr(matched, "path", None)
    if not isinstance(path, str):
        return None
    return _mounts(_below(table), _path(scope)) + path if "app_root_path" in scope else path


def _mounts(routes: Iterable[Any], path: str) -> str:
    """Return the templates of the mounts that `path` leads through."""
    for route in routes:
        below, rest = _below(route), _beyond(route, path)
        if below and rest is not None:
            found = str(getattr(route, "path", "")) + _mounts(below, rest)
            if found:  # a host takes any path, and tells nothing of it
                return found
    return ""
