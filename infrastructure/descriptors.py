"""Whether this process or this machine has as many files and connections open as it may, which passes by itself."""

import errno
import os
import re
from contextlib import ExitStack

from domain.errors import PlatformError, StoreUnavailableError

_EXHAUSTED = (errno.EMFILE, errno.ENFILE)
_SAID = re.compile(r"^(?!.*FATAL:).*Too many open files", re.DOTALL)  # And not by a server, of its own.
_NEEDED = 8
"""More than a database opens in one go: with one or two left, its file opens and the log beside it does not."""


def shortage(error: BaseException, *, is_why_untold: bool = False) -> PlatformError | None:
    """Say it where an error is that: by its number, where a driver has none in its words, and where it does not say why
    something was not opened, by a look whether anything can be.
    """
    is_said = (isinstance(error, OSError) and error.errno in _EXHAUSTED) or _SAID.search(str(error))
    return _short() if is_said or (is_why_untold and _are_short()) else None


def need_descriptors() -> None:
    """Refuse to begin what would end the process: DuckDB does, where it can open nothing while it starts.

    Raises:
        StoreUnavailableError: there are hardly any (`process.descriptors`).
    """
    if _are_short():
        raise _short()


def _short() -> PlatformError:
    return StoreUnavailableError(
        "This process, or this machine, has as many files and connections open as it may: try again in a moment, and "
        "raise the limit of open files (ulimit -n, or LimitNOFILE of a service) if it goes on.",
        code="process.descriptors",
    )


def _are_short() -> bool:
    with ExitStack() as stack:
        try:
            for _ in range(_NEEDED):
                stack.callback(os.close, os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        except OSError as error:
            return error.errno in _EXHAUSTED
    return False
