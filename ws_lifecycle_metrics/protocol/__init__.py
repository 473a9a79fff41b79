"""The WebSocket half of ASGI as data: states, legal moves, and the rules with who broke them.

Pure: standard library only, no I/O, no clock.
"""

from __future__ import annotations

from .lifecycle import Initiator, Lifecycle, Result
from .rules import RULES, SHIELDED, SHIELDED_AT_END, Findings, Party, Rule, Severity
from .table import (
    INITIAL,
    LEGAL,
    OPEN,
    STATES,
    AppState,
    Claim,
    Event,
    Label,
    ServerState,
    State,
)

__all__ = [
    "INITIAL",
    "LEGAL",
    "OPEN",
    "RULES",
    "SHIELDED",
    "SHIELDED_AT_END",
    "STATES",
    "AppState",
    "Claim",
    "Event",
    "Findings",
    "Initiator",
    "Label",
    "Lifecycle",
    "Party",
    "Result",
    "Rule",
    "ServerState",
    "Severity",
    "State",
]
