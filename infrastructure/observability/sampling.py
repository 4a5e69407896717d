"""Which traces are kept: decided where they begin, and passed on to all of their spans."""

from collections.abc import Sequence
from random import random

from opentelemetry.context import Context, create_key, get_value
from opentelemetry.sdk.trace.sampling import Decision, ParentBased, Sampler, SamplingResult, TraceIdRatioBased
from opentelemetry.trace import Link, SpanKind, TraceState, get_current_span
from opentelemetry.util.types import Attributes

UNTRUSTED = create_key("headrace-untrusted")
"""In the context of a parent whose word on sampling does not count."""

_BEGIN = (SpanKind.INTERNAL, SpanKind.SERVER)


class OwnSampler(Sampler):
    """Keeps a share of the traces that begin here, and of others what their beginning said, where that is trusted.

    What a library does outside of every trace, such as looking for work once a second, begins none.
    """

    def __init__(self, rate: float, *, by_parent: bool) -> None:
        self._share = TraceIdRatioBased(rate)
        self._passed_on: Sampler = ParentBased(self._share) if by_parent else self._share

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
        """Decide on one span."""
        if not get_current_span(parent_context).get_span_context().is_valid and kind not in _BEGIN:
            return SamplingResult(Decision.DROP)
        if get_value(UNTRUSTED, parent_context):
            # By chance: whoever chooses the id of a trace would choose one that the share takes.
            return SamplingResult(Decision.RECORD_AND_SAMPLE if random() < self._share.rate else Decision.DROP)
        return self._passed_on.should_sample(parent_context, trace_id, name, kind, attributes, links, trace_state)

    def get_description(self) -> str:
        """Name it."""
        return f"headrace {self._share.get_description()}"
