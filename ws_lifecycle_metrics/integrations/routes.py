"""The route template of a scope, from whatever knows it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..config import Config
from ..telemetry.logs import log_raised
from . import channels, litestar, starlette


def template(config: Config, router: object | None, scope: Mapping[str, Any]) -> str | None:
    """Return the route template, or None while or where nothing knows it; it is never empty.

    To Prometheus an empty label is none, and nobody could select it. `router` is what
    `find_channels_router` found in the application.
    """
    if config.route is not None:
        try:
            told = config.route(scope)
            return told if isinstance(told, str) and told else None
        except Exception as error:  # noqa: BLE001  # the user's callable may do anything
            log_raised("Config.route", "the connection's route is 'other'", error)
            return None
    found = starlette.route_template(scope)
    if found is None:
        found = litestar.route_template(scope)
    if found is None and router is not None:
        found = channels.route_template(router, scope)
    return "/" if found == "" else found


def find_channels_router(app: object) -> object | None:
    """Return the URLRouter of Django Channels within an application, or None."""
    try:
        return channels.find_router(app)
    except Exception:  # noqa: BLE001  # an application may refuse to be looked at
        return None
