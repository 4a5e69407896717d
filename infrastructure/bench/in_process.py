"""The bench that is none: calls in this process, for tests of what runs on a bench, and where nobody else writes."""

from collections.abc import Callable
from typing import ParamSpec, Protocol, TypeVar

from domain.ports.security import Cost
from infrastructure.clock import worked_seconds

P = ParamSpec("P")
T = TypeVar("T")


class Calls(Protocol):
    """Where functions are called: in this process or in a child.

    A function is one of a module, with arguments that can be pickled and a result that `answers` can write.
    """

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call it and wait; from any thread."""

    async def acall(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call it and let the event loop go on."""

    def counting(self, cost: Cost) -> "Calls":
        """Give these calls, which add the seconds of a processor that they take to a cost."""


class InProcessBench(Calls):
    """Calls directly."""

    def __init__(self, cost: Cost | None = None) -> None:
        self._cost = cost or Cost()

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        begun = worked_seconds()
        try:
            return function(*args, **kwargs)
        finally:
            self._cost.seconds += worked_seconds() - begun

    async def acall(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return self.call(function, *args, **kwargs)

    def counting(self, cost: Cost) -> "InProcessBench":
        return InProcessBench(cost)
