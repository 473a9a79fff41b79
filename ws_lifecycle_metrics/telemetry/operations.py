"""The span of a GraphQL operation, made when the operation is over.

No context is attached: a subscription's generator may be ended by another task, in another
context, than the one that began it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from opentelemetry.context import Context, get_current
from opentelemetry.trace import Link, SpanContext, SpanKind

from ..labels import safe_label
from . import carriers
from .tracer import ROOT, SpanMaker, tracer_of

if TYPE_CHECKING:
    from ..config import Config
    from .spans import ConnectionSpans

SUBSCRIPTION = "subscription"


class OperationSpan:
    """What will be the span of an operation that has begun: nothing is open until it ends."""

    __slots__ = ("_began_at", "_kind", "_links", "_maker", "_parent")

    def __init__(
        self, maker: SpanMaker, parent: Context | None, links: Sequence[Link], kind: SpanKind
    ) -> None:
        self._maker = maker
        self._parent = parent
        self._links = links
        self._kind = kind
        self._began_at = time.monotonic_ns()

    def ended(
        self,
        type: str | None,
        name: str,
        reason: str,
        *,
        events: int = 0,
        event_errors: int = 0,
        error: BaseException | None = None,
    ) -> SpanContext | None:
        """Make the span; return its context if it is sampled.

        `type` is None where the operation was refused before it had one; `name` is empty for an
        anonymous one; `reason` is how it ended, and "error" alone makes the status ERROR.
        """
        title = safe_label(name) if name else ""
        attributes: dict[str, Any] = {"graphql.operation.end_reason": reason}
        if type is not None:
            attributes["graphql.operation.type"] = type
        if title:
            attributes["graphql.operation.name"] = title
        parent = self._parent
        if type == SUBSCRIPTION:
            attributes["graphql.subscription.events"] = events
            attributes["graphql.subscription.event_errors"] = event_errors
        elif parent is None and self._links:
            parent = carriers.context_of(self._links[-1].context)
        return self._maker.make(
            f"{type or 'GraphQL operation'} {title}".rstrip(),
            self._began_at,
            time.monotonic_ns(),
            attributes,
            links=self._links,
            context=parent or ROOT,
            kind=self._kind,
            error=error,
            failed=reason == "error",
        )


def begin_operation(
    config: Config,
    lost: Callable[[], object],
    *,
    socket: bool,
    connection: ConnectionSpans | None = None,
    extensions: object = None,
) -> OperationSpan | None:
    """Note that an operation begins; None where it is not traced.

    `socket` is whether it came over a WebSocket, and `connection` its spans if that is sampled.
    Its parent is the traceparent in `extensions`; else, over a WebSocket, that of
    `connection_init` or the handshake, which a subscription is only linked to; else the span
    that is current here. `lost` is called if the span cannot be made.
    """
    remote = carriers.from_payload(extensions)
    if socket and connection is None and remote is None:
        return None
    tracer = tracer_of(config.tracer_provider, lost)
    if tracer is None:
        return None
    maker = SpanMaker(tracer, lost)
    if not socket:
        return OperationSpan(maker, remote or get_current(), (), SpanKind.INTERNAL)
    links = () if connection is None else connection.links
    return OperationSpan(maker, remote, links, SpanKind.SERVER)
