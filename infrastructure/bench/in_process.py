"""The bench that is none: calls in this process, for tests of what runs on a bench, and where nobody else writes."""

from collections.abc import Callable
from typing import ParamSpec, Protocol, TypeVar

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


class InProcessBench(Calls):
    """Calls directly."""

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return function(*args, **kwargs)

    async def acall(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return function(*args, **kwargs)
