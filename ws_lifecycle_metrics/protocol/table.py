"""The protocol on one screen: the states, the events and every legal move.

Rule 1: whatever decides if an event is legal in a state stands in this file, as data.
What is not legal is claimed, in the same form, by exactly one rule in ``rules.py``.

The state of a conversation is a pair: what the application has answered, and what the
server has delivered. Each party moves its own half, so either may run ahead of the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal, NamedTuple, TypeAlias

# A StrEnum hashes in C and equals ASGI's own strings, so that nothing is converted.


class Event(StrEnum):
    """What can happen in a conversation."""

    # The server delivers.
    CONNECT = "websocket.connect"
    RECEIVE = "websocket.receive"
    DISCONNECT = "websocket.disconnect"
    # The application sends.
    ACCEPT = "websocket.accept"
    SEND = "websocket.send"
    CLOSE = "websocket.close"
    DENIAL_START = "websocket.http.response.start"
    DENIAL_BODY = "websocket.http.response.body"
    DENIAL_END = "last denial body"  # on the wire: a body with more_body false
    # The application calls receive(); a send fails because the client is gone, which the
    # application may learn before any disconnect is delivered (ASGI WebSocket, Disconnect).
    RECEIVE_CALL = "receive call"
    SEND_LOST = "send lost"
    # The application ends.
    RETURN = "return"
    RAISE = "raise"
    CANCEL = "cancel"


class AppState(StrEnum):
    """What the application has answered."""

    UNANSWERED = "unanswered"
    ACCEPTED = "accepted"
    DENYING = "denying"
    REJECTED = "rejected"  # closed before the accept, or the denial response is complete
    CLOSED = "closed"  # closed after the accept


class ServerState(StrEnum):
    """What the server has delivered."""

    NEW = "new"  # nothing yet
    CONNECTED = "connected"
    LOST = "lost"  # a send failed: the client is gone, and no disconnect was delivered
    DISCONNECTED = "disconnected"


Label: TypeAlias = Literal["connecting", "open", "closing"]

UNANSWERED, ACCEPTED, DENYING, REJECTED, CLOSED = AppState
NEW, CONNECTED, LOST, DISCONNECTED = ServerState

ANY_APP: Final = tuple(AppState)
UNFINISHED: Final = (UNANSWERED, ACCEPTED, DENYING)
FINISHED: Final = (REJECTED, CLOSED)
ANY_SERVER: Final = tuple(ServerState)
PRESENT: Final = (NEW, CONNECTED)
GONE: Final = (LOST, DISCONNECTED)


class Claim(NamedTuple):
    """One row: an event, the states it is met in, and the halves it moves (None: it stays)."""

    event: Event
    apps: tuple[AppState, ...]
    servers: tuple[ServerState, ...]
    app: AppState | None = None
    server: ServerState | None = None

    def cells(self) -> Iterator[tuple[State, State]]:
        """Yield each state the row claims, with the state that follows it."""
        for state in STATES:
            if state.app in self.apps and state.server in self.servers:
                yield state, State.at(self.app or state.app, self.server or state.server)


LEGAL: Final[tuple[Claim, ...]] = (
    # The server delivers; what was queued is still delivered after a close or a loss.
    Claim(Event.CONNECT, ANY_APP, (NEW,), server=CONNECTED),
    Claim(Event.CONNECT, ANY_APP, (LOST,)),
    Claim(Event.RECEIVE, (ACCEPTED, CLOSED), (CONNECTED, LOST)),
    Claim(Event.DISCONNECT, ANY_APP, (CONNECTED, LOST), server=DISCONNECTED),
    # The application answers, once, and then speaks until it closes.
    Claim(Event.ACCEPT, (UNANSWERED,), (CONNECTED,), app=ACCEPTED),
    Claim(Event.SEND, (ACCEPTED,), PRESENT),
    Claim(Event.CLOSE, (UNANSWERED,), PRESENT, app=REJECTED),
    Claim(Event.CLOSE, (ACCEPTED,), PRESENT, app=CLOSED),
    Claim(Event.DENIAL_START, (UNANSWERED,), PRESENT, app=DENYING),
    Claim(Event.DENIAL_BODY, (DENYING,), PRESENT),
    Claim(Event.DENIAL_END, (DENYING,), PRESENT, app=REJECTED),
    # It may wait for an event at any time before the last one, and find the client gone.
    Claim(Event.RECEIVE_CALL, ANY_APP, (NEW, CONNECTED, LOST)),
    Claim(Event.SEND_LOST, ANY_APP, PRESENT, server=LOST),
    Claim(Event.SEND_LOST, ANY_APP, GONE),
    # It may end once it has finished or the client is gone, whether or not it read of it.
    Claim(Event.RETURN, FINISHED, ANY_SERVER),
    Claim(Event.RETURN, UNFINISHED, GONE),
    Claim(Event.CANCEL, ANY_APP, ANY_SERVER),
)


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """One interned pair of states: compare with ``is``, store as its ``code``."""

    app: AppState
    server: ServerState
    code: int  # 0 to 19, stable: it is stored in memory that other processes read

    @staticmethod
    def at(app: AppState, server: ServerState) -> State:
        """Return the one state of this pair."""
        return _BY_PAIR[app, server]

    @staticmethod
    def from_code(code: int) -> State:
        """Return the state with this code; IndexError for a code that was never given out."""
        if code < 0:
            raise IndexError(f"no state has the code {code}")
        return STATES[code]

    @property
    def label(self) -> Label:
        """The state as an operator counts it; *closing* lasts until the application ends."""
        if self.server in GONE or self.app in FINISHED:
            return "closing"
        return "open" if self.app is ACCEPTED else "connecting"

    def __reduce__(self) -> tuple[object, tuple[int]]:
        return State.from_code, (self.code,)  # a copy is the same object: identity is equality


STATES: Final[tuple[State, ...]] = tuple(
    State(app, server, code)
    for code, (app, server) in enumerate((a, s) for a in AppState for s in ServerState)
)
_BY_PAIR: Final = {(state.app, state.server): state for state in STATES}

INITIAL: Final = State.at(UNANSWERED, NEW)
OPEN: Final = State.at(ACCEPTED, CONNECTED)
