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

_HOUR_SECONDS = 3600.0
_WRITTEN = re.compile(
    r"(?P<name>[a-z_.]+):(?P<nth>[0-9]+)(?P<again>\+?):"
    r"(?P<action>kill|stop|raise|sleep)((?<=sleep)=(?P<seconds>[0-9]{1,6}(\.[0-9]{1,6})?))?"
)


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
    found = _WRITTEN.fullmatch(text)
    if found is None or found["name"] not in FAILPOINTS or int(found["nth"]) < 1:
        message = "must be name:nth:kill|stop|raise|sleep[=seconds], several with commas"
        raise SettingsError([Problem("HEADRACE_FAILPOINT", "settings.value", message)])
    seconds = min(float(found["seconds"] or _HOUR_SECONDS), _HOUR_SECONDS)
    return _Failpoint(
        found["name"], int(found["nth"]), found["action"], seconds=seconds, is_repeated=bool(found["again"])
    )
