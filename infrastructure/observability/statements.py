"""Statements of SQLAlchemy as spans: the listener of its instrumentation, asked only within traces that are kept.

The instrumentation itself asks for SQLAlchemy below 2.1, and works out what it would say of a statement before it knows
whether anybody wants to hear it, which was a tenth of the time of a small run.
"""

from typing import Any

from opentelemetry.instrumentation.sqlalchemy.engine import EngineTracer
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import get_current_span
from sqlalchemy.ext import asyncio as alchemy

_SCOPE = "opentelemetry.instrumentation.sqlalchemy"
_OF_POOLS = ("connect", "close", "checkin", "checkout")
"""Events that it counts connections by, which we do ourselves: they cost a tenth of each transaction."""


class _KeptTracer(EngineTracer):
    @classmethod
    def _register_event_listener(cls, target: Any, identifier: str, func: Any, *args: Any, **named: Any) -> None:
        if identifier not in _OF_POOLS:
            super()._register_event_listener(target, identifier, func, *args, **named)  # type: ignore[no-untyped-call]

    def _before_cur_exec(
        self, connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, executemany: bool
    ) -> tuple[str, Any]:
        if not get_current_span().is_recording():
            return statement, parameters
        told: tuple[str, Any] = super()._before_cur_exec(  # type: ignore[no-untyped-call]
            connection, cursor, statement, parameters, context, executemany
        )
        return told


class StatementInstrumentor:
    """Instruments the engines that are made from now on."""

    def __init__(self) -> None:
        self._made = alchemy.create_async_engine

    def instrument(self, *, tracer_provider: TracerProvider) -> None:
        """Begin."""
        tracer = tracer_provider.get_tracer(_SCOPE)
        uncounted = NoOpMeterProvider().get_meter(_SCOPE).create_up_down_counter("connections")
        make = self._made

        def made(*given: Any, **named: Any) -> alchemy.AsyncEngine:
            engine = make(*given, **named)
            _KeptTracer(tracer, engine.sync_engine, uncounted)  # type: ignore[no-untyped-call]
            return engine

        alchemy.create_async_engine = made

    def uninstrument(self) -> None:
        """End, for the engines too that there are."""
        alchemy.create_async_engine = self._made
        EngineTracer.remove_all_event_listeners()  # type: ignore[no-untyped-call]
