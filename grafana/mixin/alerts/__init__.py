"""All alerts, worst first, each with its runbook entry beside it."""

from __future__ import annotations

from ..alert import Alert
from . import clients, connections, itself, protocol, subscriptions, workers

ALERTS: tuple[Alert, ...] = (
    *workers.ALERTS,
    *connections.ALERTS,
    *subscriptions.ALERTS,
    *protocol.ALERTS,
    *clients.ALERTS,
    *itself.ALERTS,
)
