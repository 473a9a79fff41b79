"""Know the state of every ASGI WebSocket and GraphQL subscription, and who broke the protocol.

`LifecycleMiddleware(app)` observes; `metrics_app()` and `LifecycleCollector` expose;
`ws-lifecycle-metrics serve` does so from outside the workers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .config import Config as Config
    from .config import ConfigError as ConfigError
    from .conversation import ProtocolViolation as ProtocolViolation
    from .middleware import LifecycleMiddleware as LifecycleMiddleware
    from .telemetry.prometheus import LifecycleCollector as LifecycleCollector
    from .telemetry.prometheus import metrics_app as metrics_app
    from .watchdog.stuck import StuckEvent as StuckEvent

__all__ = [
    "Config",
    "ConfigError",
    "LifecycleCollector",
    "LifecycleMiddleware",
    "ProtocolViolation",
    "StuckEvent",
    "metrics_app",
]

# Imported when first used: prometheus_client alone costs ten times a bare interpreter's start.
_HOMES = {
    "Config": "config",
    "ConfigError": "config",
    "LifecycleCollector": "telemetry.prometheus",
    "LifecycleMiddleware": "middleware",
    "ProtocolViolation": "conversation",
    "StuckEvent": "watchdog.stuck",
    "metrics_app": "telemetry.prometheus",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
