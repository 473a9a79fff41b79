"""The ASGI middleware: holds the configuration, and watches every scope while changing nothing.

A `Conversation` is made for each WebSocket and holds its state.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from .config import Config, checked
from .conversation import ASGIApp, Conversation, Receive, Scope, Send
from .integrations import routes, servers
from .integrations.graphql_ws import SERVED, Served, serve
from .store.worker import MOST_FAULTS, Worker
from .store.workers import existing, observe
from .telemetry.logs import log_fault, log_once
from .watchdog.guard import attended


class LifecycleMiddleware:
    """Counts every WebSocket of `app` from connect to disconnect and flags broken rules.

    `app` is any ASGI 3 application; `config` defaults to what the environment says.
    HTTP and unknown scopes pass untouched. Raises nothing of its own into the application,
    except `ProtocolViolation` under the policy `strict`.
    """

    def __init__(self, app: ASGIApp, *, config: Config | None = None) -> None:
        self.app = app
        self.config = Config() if config is None else checked(config)
        observe(self.config)
        self._channels = routes.find_channels_router(app)
        self._advised = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> Any:
        """Serve one scope; returns what the application returns."""
        served = conversation = None
        try:
            receive, served, conversation = self._wrap(scope, receive, send)
        except Exception as error:  # noqa: BLE001  # the boundary: our fault, the application's scope
            log_fault(error)
            with suppress(Exception):  # it may be the worker that cannot be had
                attended(self.config).count_internal_error()
        token = SERVED.set(served)
        try:
            if conversation is None:
                return await self.app(scope, receive, send)
            conversation.guard(conversation.begin)
            # Not in a coroutine of the conversation's: each one more is resumed with every event.
            conversation.awaitable = self.app(scope, conversation.receive, conversation.send)
            result = await conversation.awaitable
        except BaseException as error:
            if conversation is not None:
                conversation.guard(conversation.end, error)
            raise
        finally:
            try:  # noqa: SIM105  # a context manager would cost as much as the reset
                SERVED.reset(token)
            except ValueError:
                pass  # another context, as the garbage collector ended this
        conversation.guard(conversation.end)
        return result

    def _wrap(
        self, scope: Scope, receive: Receive, send: Send
    ) -> tuple[Receive, Served | None, Conversation | None]:
        if not self._advised:
            self._advised = True
            servers.advise(receive, send)
        kind = scope.get("type") if type(scope) is dict else None
        if type(kind) is not str:
            return receive, None, None  # whatever it is, it is the application's to refuse
        worker = attended(self.config)
        if kind == "lifespan":
            return _noting_lifespan(receive, self.config), None, None
        if worker.internal_errors >= MOST_FAULTS:
            return receive, None, None
        if self._is_inner(scope, receive, worker):
            return receive, SERVED.get(), None
        served = serve(worker, scope)
        socket = kind == "websocket"
        conversation = Conversation(self, worker, scope, receive, send, served) if socket else None
        return receive, served, conversation

    def _is_inner(self, scope: Scope, receive: Receive, worker: Worker) -> bool:
        """Whether another middleware of this worker observes the scope already: once is enough."""
        outer = getattr(receive, "__self__", None)
        if type(outer) is not Conversation or outer.worker is not worker:
            # What is between may wrap the calls and copy the scope, or be another service's.
            around = SERVED.get()
            while around is not None and not _observes(around, worker, scope):
                around = around.outer
            if around is None:
                return False
        log_once(
            f"the application is wrapped twice for the service {self.config.service!r}:"
            " the inner LifecycleMiddleware leaves all WebSockets to the outer one"
        )
        return True

    def template(self, scope: Scope) -> str | None:
        """Return the route template of a scope, or None while or where nothing knows it."""
        return routes.template(self.config, self._channels, scope)


def _observes(served: Served, worker: Worker, scope: Scope) -> bool:
    """Whether it is of a conversation that runs in this worker, on the connection of `scope`."""
    if served.worker is not worker:
        return False
    conversation = worker.live.get(served.serial)
    return conversation is not None and conversation.shares(scope)


def _noting_lifespan(receive: Receive, config: Config) -> Receive:
    async def noting() -> Any:
        message = await receive()
        try:
            kind = message.get("type") if type(message) is dict else None
            worker = existing(config)
            if worker is not None and kind == "lifespan.startup":
                worker.startup()
            elif worker is not None and kind == "lifespan.shutdown":
                worker.shutdown()
        except Exception as error:  # noqa: BLE001  # the boundary: the message is the application's
            log_fault(error)
        return message

    return noting
