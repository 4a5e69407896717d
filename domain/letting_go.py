"""What a run that failed or was stopped held, such as batches, goes at once.

An error that a task keeps refers by its traceback to the frames that it went through, and some of those to the task:
such a circle waits for the garbage collector, which comes by the number of objects and not by their size.
"""

import asyncio
from contextlib import suppress
from typing import Any

from domain.errors import PlatformError


def let_go(error: BaseException | None) -> None:
    """Forget where an error of ours, and those behind it, came from; of a bug that has to be told."""
    if not isinstance(error, PlatformError | asyncio.CancelledError):
        return
    met = set[int]()
    while error is not None and id(error) not in met:
        met.add(id(error))
        error.__traceback__ = None
        error = error.__cause__ or error.__context__


async def ended(task: "asyncio.Task[Any]") -> None:
    """Cancel a task, wait for its end and take what it ended with from it."""
    task.cancel()
    await asyncio.wait({task})
    with suppress(BaseException):
        task.result()
