"""What stands in the records, read so that what somebody has changed there concerns nobody else."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from infrastructure.log import log

T = TypeVar("T")
U = TypeVar("U")


def undamaged(read: Callable[[Mapping[str, Any]], T], value: Any, instead: U) -> T | U | None:
    """Read a JSON value of a row; what Headrace has never written there is said in the log, and is `instead`."""
    if not value:
        return None
    try:
        return read(value)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError) as error:
        log.warning("records.damaged", of=read.__qualname__, kind=type(error).__name__)
        return instead
