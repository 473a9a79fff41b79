"""What GraphQL operations and the connection they run on know of each other.

The middleware leaves a `Served` in a context variable, which every framework carries to the
tasks and threads that it starts for the scope; an integration takes it there when an operation
begins. On a connection that offers a GraphQL subprotocol it is a `Subscriptions`: it sees what
the client sends, and keeps the connection's record for as long as subscriptions go on.
"""

from __future__ import annotations

import asyncio
import sys
import time
from asyncio import AbstractEventLoop
from collections.abc import Awaitable, Callable
from contextlib import suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from ..store import layout as at
from ..store.layout import NS, GraphQLState
from ..store.worker import Route, Worker
from ..telemetry.logs import log_fault
from .asked import BEGINNINGS, ENDS, Asked, Request, read_frame
from .orphans import Orphan, Running

if TYPE_CHECKING:
    from ..conversation import Conversation
    from ..telemetry.operations import OperationSpan

Receive = Callable[[], Awaitable[Any]]
P = ParamSpec("P")
T = TypeVar("T")

SUBPROTOCOLS = frozenset({"graphql-transport-ws", "graphql-ws"})


class Served:
    """What serves a scope: the worker, and the event loop that is the worker's own, if known; of a
    WebSocket also the serial of its conversation, and what serves the scope around it, if any.
    """

    __slots__ = ("_conversation", "loop", "outer", "serial", "worker")

    def __init__(self, worker: Worker, outer: Served | None = None) -> None:
        self.worker = worker
        self.outer = outer
        self.serial = 0  # not the conversation: a task that outlives the connection keeps this
        self._conversation: Conversation | None = None
        self.loop: AbstractEventLoop | None = worker.loop

    def move(self, worker: Worker) -> None:
        """Go on in another worker's segment."""
        self.worker = worker

    def run(self, step: Callable[[], object]) -> None:
        """Run a step that writes to the worker's words: now, or soon where this is its thread.

        From any other thread (a synchronous Django view runs in one) it is left to the loop,
        without waiting for it; where that loop is gone, the worker's next scope takes it.
        """
        if self.worker.is_here():
            self.settle()  # what came before stays before
            step()
            return
        self.worker.posted.append(step)
        if self.loop is not None:
            with suppress(RuntimeError):  # it is closed
                self.loop.call_soon_threadsafe(self.settle)

    def settle(self) -> None:
        """Run, in the worker's own thread, what other threads left; a fault in it stays here."""
        posted = self.worker.posted
        while posted:
            guarded(self, posted.popleft())

    # A scope that is no WebSocket of a GraphQL subprotocol knows nothing of its operations.

    socket = False

    def begin_span(self, extensions: object) -> OperationSpan | None:
        """Note that an operation begins, for the span that it gets at its end; None: no span.

        `extensions` are those of its message, where a client may say whose trace it belongs to.
        """
        config = self.worker.config
        if config.tracer_provider is None and "opentelemetry.trace" not in sys.modules:
            return None
        from ..telemetry.operations import begin_operation

        spans = None if self._conversation is None else self._conversation.spans
        return begin_operation(
            config,
            lambda: self.run(self.worker.count_dropped_span),
            socket=self.socket,
            connection=spans,
            extensions=_CARRIED.get() if extensions is None and self.socket else extensions,
        )

    def watch(self, conversation: Conversation, receive: Receive) -> Receive:
        """Return what stands between the server's `receive` and the conversation."""
        return receive

    def keep(self, route: Route, record: memoryview) -> bool:
        """Whether the record of a connection that ends is still needed, and by whom freed."""
        return False

    def subscription_began(self, subscription: Running) -> None:
        """Note that a subscription runs on this connection."""

    def subscription_ended(self, subscription: Running) -> None:
        """Note that a subscription on this connection has ended."""

    def operation_began(self) -> Request | None:
        """Note that an operation of any type begins; return what the client asked, if known."""
        return None

    def operation_ended(self, request: Request | None) -> None:
        """Note that an operation of any type is over, executed or not."""

    def end_reason(self, request: Request | None, otherwise: str) -> str:
        """Return why an operation was broken off, as the connection knows it."""
        return otherwise


_CARRIED: ContextVar[object] = ContextVar("ws_lifecycle_metrics_carried", default=None)
"""The extensions of the message that was read last: who begins an operation of it, in a task of
its own, has a copy of the context from then. No framework hands them over on a WebSocket."""

SERVED: ContextVar[Served | None] = ContextVar("ws_lifecycle_metrics_served", default=None)


def guarded(
    served: Served | None, step: Callable[P, T], *arguments: P.args, **options: P.kwargs
) -> T | None:
    """Run a step of ours; a fault in it is counted and logged, and the step gives None."""
    try:
        return step(*arguments, **options)
    except Exception as error:  # noqa: BLE001  # the boundary that keeps our faults to ourselves
        note_fault(served, error)
    return None


def note_fault(served: Served | None, error: Exception) -> None:
    """Log and count a fault of ours."""
    log_fault(error)
    with suppress(Exception):  # the same fault may stand in the way of counting it
        if served is not None:
            served.run(served.worker.count_internal_error)


class Subscriptions(Served):
    """The GraphQL side of one WebSocket connection.

    It stands between the server's `receive` and the conversation, so that only connections
    that may speak GraphQL pay for it.
    """

    __slots__ = ("_asked", "_cancelled", "_kept", "_noted_at", "_receive", "_running")

    socket = True

    def __init__(self, worker: Worker, outer: Served | None) -> None:
        super().__init__(worker, outer)
        self._running: dict[Running, None] = {}  # in the order in which they began
        self._asked = Asked()
        self._noted_at = 0
        self._cancelled = False
        self._kept: tuple[Route, memoryview] | None = None

    def move(self, worker: Worker) -> None:
        """Go on in another worker's segment, with what runs."""
        self.worker = worker
        for subscription in self._running:
            subscription.moved()

    def watch(self, conversation: Conversation, receive: Receive) -> Receive:
        """Return the `receive` that sees what the client asks for."""
        self._conversation, self._receive = conversation, receive
        return self.receive

    async def receive(self) -> Any:
        """Receive as the server does, and note what the client asks for."""
        self._cancelled = False
        try:
            message = await self._receive()
        except asyncio.CancelledError:
            # Whoever cancels the application does it here, where it waits.
            self._cancelled = True
            raise
        guarded(self, self._note, message)
        return message

    def _note(self, message: Any) -> None:
        text = message.get("text") if type(message) is dict else None
        if type(text) is not str:
            return
        found = read_frame(text)
        if found is None:
            return
        (kind, id), now = found, time.monotonic_ns()
        if not self._running and now - self._noted_at > NS:
            # Frameworks do not begin what is subscribed and completed in one breath.
            self._asked.forget_waiting()
        self._noted_at = now
        if kind in ENDS:
            self._asked.complete(id)
            return
        if kind in BEGINNINGS:
            self._asked.subscribe(id)
            self._carry(text)
        record = self._record()
        if kind == "connection_init":
            record[at.GRAPHQL] = GraphQLState.INITIALISED
        elif record[at.GRAPHQL] == GraphQLState.NO_INIT:
            record[at.GRAPHQL] = GraphQLState.SUBSCRIBED_EARLY

    def _carry(self, text: str) -> None:
        if "opentelemetry.trace" not in sys.modules:
            return
        from ..telemetry.carriers import extensions_of

        found = extensions_of(text)
        if found is not _CARRIED.get():
            _CARRIED.set(found)

    def _record(self) -> memoryview:
        if self._kept is not None:
            return self._kept[1]
        assert self._conversation is not None, "made together with its conversation"
        return self._conversation.record

    def subscription_began(self, subscription: Running) -> None:
        """Note that a subscription runs on this connection."""
        self._running[subscription] = None
        self._record()[at.OPERATIONS] = len(self._running)

    def subscription_ended(self, subscription: Running) -> None:
        """Note that it has ended; the last one frees the record of an ended connection."""
        self._running.pop(subscription, None)
        self._record()[at.OPERATIONS] = len(self._running)
        if self._kept is not None and not self._running:
            route, record = self._kept
            self._kept = None
            self.worker.left.pop(record[at.SERIAL], None)
            route.give_back(record)

    def operation_began(self) -> Request | None:
        """Note that an operation of any type begins; return what the client asked, if known."""
        return self._asked.begin()

    def operation_ended(self, request: Request | None) -> None:
        """Note that an operation of any type is over, executed or not."""
        if request is not None:
            self._asked.end(request)

    def end_reason(self, request: Request | None, otherwise: str) -> str:
        """Return why an operation was broken off; `otherwise` where nothing here explains it."""
        # First what came first: a client that completes an operation often leaves at once.
        if request is not None and request.completed:
            return "client_complete"
        conversation = self._conversation
        if conversation is not None and conversation.over:
            return "disconnected"
        return "cancelled" if self._cancelled or self._kept is not None else otherwise

    def keep(self, route: Route, record: memoryview) -> bool:
        """Take the record of a connection that ends while subscriptions go on, if any do.

        From here on they are its only writers, in the same thread as the conversation was: each
        counts itself out when it ends, be it by the garbage collector long after.
        """
        if not self._running:
            return False
        record[at.STATE] = at.ORPHANED
        record[at.STATE_AT] = time.monotonic_ns()
        self._kept = route, record
        self.worker.left[record[at.SERIAL]] = Orphan(self._conversation, self._running)
        return True


def serve(worker: Worker, scope: Any) -> Served:
    """Return what an operation is to find that runs while `worker` serves this scope."""
    if scope.get("type") == "websocket":
        served = (Subscriptions if _offers_graphql(scope) else Served)(worker, SERVED.get())
    else:
        served = worker.served
        if served is None or served.loop is not worker.loop:
            served = worker.served = Served(worker)
    if worker.posted:
        served.settle()
    return served


def _offers_graphql(scope: Any) -> bool:
    offered = scope.get("subprotocols")
    # Any other iterable could be one that only the application may read.
    if not isinstance(offered, (list, tuple)) or not offered:
        return False
    return any(type(name) is str and name in SUBPROTOCOLS for name in offered)
