"""Arms a failpoint from HEADRACE_FAILPOINT=name:nth:kill|stop|raise|sleep, for tests, `crashtest` and the demo.

`nth+` means the nth time and every time after it.
"""

import os
import signal
import threading
import time

from domain.errors import Problem, SettingsError, StoreUnavailableError
from domain.failpoints import FAILPOINTS, arm

_ACTIONS = ("kill", "stop", "raise", "sleep")


def arm_from(value: str | None) -> None:
    """Arm the failpoint that the environment names, if any.

    Raises:
        SettingsError: the value is not `name:nth:action` with a known name and action.
    """
    if not value:
        return
    name, _, rest = value.partition(":")
    nth, _, action = rest.partition(":")
    is_repeated, nth = nth.endswith("+"), nth.removesuffix("+")
    if name not in FAILPOINTS or not nth.isascii() or not nth.isdigit() or int(nth) < 1 or action not in _ACTIONS:
        raise SettingsError([Problem("HEADRACE_FAILPOINT", "settings.value", "must be name:nth:kill|stop|raise|sleep")])
    arm(_Failpoint(name, int(nth), action, is_repeated=is_repeated))


class _Failpoint:
    def __init__(self, name: str, nth: int, action: str, *, is_repeated: bool) -> None:
        self._name = name
        self._is_repeated = is_repeated
        self._left = nth
        self._action = action
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
                time.sleep(3600)
            case _:
                raise StoreUnavailableError(f"The failpoint {name} fired.")
