"""What users need in their own tests: record or forbid what breaks the protocol, without a server.

The pytest fixture `asgi_lifecycle` comes with the plugin `ws_lifecycle_metrics.testing.plugin`.
"""

from __future__ import annotations

from .driver import Closed, Rejected, WebSocket, websocket
from .recorder import Entry, Recorder, Watch

__all__ = ["Closed", "Entry", "Recorder", "Rejected", "Watch", "WebSocket", "websocket"]
