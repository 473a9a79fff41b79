"""A sampler for OpenTelemetry's SDK that keeps what belongs together."""

from __future__ import annotations

from collections.abc import Sequence

from opentelemetry.context import Context
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult
from opentelemetry.trace import Link, SpanKind, TraceState, get_current_span
from opentelemetry.util.types import Attributes


class FollowLinks(Sampler):
    """Sample a root span that is linked to a sampled span; leave every other to `otherwise`.

    A connection, its messages and its subscriptions are roots of their own, linked to the
    handshake. A sampler that decides by chance would keep a tenth of the handshakes, and of
    those a tenth of the connections; this one keeps all that is linked to a kept handshake.
    """

    def __init__(self, otherwise: Sampler) -> None:
        self._otherwise = otherwise

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        """Decide about a span that begins."""
        has_parent = get_current_span(parent_context).get_span_context().is_valid
        if not has_parent and any(link.context.trace_flags.sampled for link in links or ()):
            return SamplingResult(Decision.RECORD_AND_SAMPLE, attributes, trace_state)
        return self._otherwise.should_sample(
            parent_context, trace_id, name, kind, attributes, links, trace_state
        )

    def get_description(self) -> str:
        """Return the sampler's name for the SDK's logs."""
        return f"FollowLinks({self._otherwise.get_description()})"
