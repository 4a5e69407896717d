"""Use cases as spans of the trace that they are called in."""

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar, cast

from domain.ports.telemetry import ITelemetry

P = ParamSpec("P")
R = TypeVar("R")


def traced(telemetry: ITelemetry, name: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Let each call be a span of a name, until it returns or, where it is awaited, until that has ended."""

    def decorate(work: Callable[P, R]) -> Callable[P, R]:
        if inspect.iscoroutinefunction(work):

            @wraps(work)
            async def awaited(*args: P.args, **named: P.kwargs) -> Any:
                with telemetry.span(name):
                    return await work(*args, **named)

            return cast("Callable[P, R]", awaited)

        @wraps(work)
        def called(*args: P.args, **named: P.kwargs) -> R:
            with telemetry.span(name):
                return work(*args, **named)

        return called

    return decorate
