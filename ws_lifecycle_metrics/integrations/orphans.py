"""Subscriptions that go on without their connection, as the watchdog looks at them."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from ..labels import TraceIds

if TYPE_CHECKING:
    from ..conversation import Conversation

Task = weakref.ref[asyncio.Task[Any]]


class Running(Protocol):
    """A subscription that has begun; `task` is what runs it, None where that may not be asked."""

    task: Task | None

    def moved(self) -> None:
        """Count on in the worker that its connection has now."""


def own_task() -> Task | None:
    """Return the task that runs the caller, for as long as it runs."""
    try:
        task = asyncio.current_task()
    except RuntimeError:  # another library's loop
        return None
    # A server's own class of tasks may crash the process when such a task is asked where it is.
    return weakref.ref(task) if type(task) is asyncio.Task else None


class Orphan:
    """What a connection has left behind: its subscriptions that go on, the oldest one first."""

    __slots__ = ("_conversation", "_running")

    def __init__(
        self, conversation: Conversation | None, running: Mapping[Running, object]
    ) -> None:
        self._conversation = conversation
        self._running = running

    @property
    def awaitable(self) -> Any:
        """What the oldest of the subscriptions waits in; None where that cannot be told."""
        for subscription in self._running:
            task = None if subscription.task is None else subscription.task()
            if task is not None:
                return task.get_coro()
        return None

    def found_stuck(self, reason: str) -> TraceIds | None:
        """Return trace and span of the connection's handshake, if it has any."""
        return None if self._conversation is None else self._conversation.found_stuck(reason)
