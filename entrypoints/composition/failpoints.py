"""Arms failpoints from HEADRACE_FAILPOINT=name:nth:kill|stop|raise|sleep[=seconds], for tests, `crashtest`, the demo.

`nth+` means the nth time and every time after it. A comma separates several failpoints.
"""

import os
import re
import signal
import threading
import time

from domain.errors import Problem, SettingsError, StoreUnavailableError
from domain.failpoints import FAILPOINTS, arm

_ACTIONS = ("kill", "stop", "raise", "sleep")
_HOUR_SECONDS = 3600.0


def arm_from(value: str | None) -> None:
    """Arm the failpoints that the environment names, if any.

    Raises:
        SettingsError: a part of the value is not `name:nth:action` with a known name and action.
    """
    if not value:
        return
    armed = [_failpoint(part) for part in value.split(",")]

    def passed(name: str) -> None:
        for failpoint in armed:
            failpoint(name)

    arm(passed)


class _Failpoint:
    def __init__(self, name: str, nth: int, action: str, *, seconds: float, is_repeated: bool) -> None:
        self._name = name
        self._is_repeated = is_repeated
        self._left = nth
        self._action = action
        self._seconds = seconds
        self._guard = threading.Lock()

    def __call__(self, name: str) -> None:
        if name != self._name:
            return
        with self._guard:
            self._left -= 1
            if self._left > 0 or (self._left < 0 and not self._is_repeated):
                return
        match self._action:
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "stop":
                os.kill(os.getpid(), signal.SIGSTOP)
            case "sleep":
                time.sleep(self._seconds)
            case _:
                raise StoreUnavailableError(f"The failpoint {name} fired.")


def _failpoint(text: str) -> _Failpoint:
    name, _, rest = text.partition(":")
    nth, _, action = rest.partition(":")
    action, has_seconds, given = action.partition("=")
    is_repeated, nth = nth.endswith("+"), nth.removesuffix("+")
    seconds = _seconds(given) if has_seconds and action == "sleep" else None if has_seconds else _HOUR_SECONDS
    is_counted = nth.isascii() and nth.isdigit() and int(nth) > 0
    if name not in FAILPOINTS or not is_counted or action not in _ACTIONS or seconds is None:
        message = "must be name:nth:kill|stop|raise|sleep[=seconds], several with commas"
        raise SettingsError([Problem("HEADRACE_FAILPOINT", "settings.value", message)])
    return _Failpoint(name, int(nth), action, seconds=seconds, is_repeated=is_repeated)


def _seconds(text: str) -> float | None:
    return min(float(text), _HOUR_SECONDS) if re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,6})?", text) else None
