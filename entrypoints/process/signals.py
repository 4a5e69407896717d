"""The signals of a process that serves (X3)."""

import asyncio
import os
import signal

from application.operations.health import Life


def own_signals(life: Life) -> None:
    """The first SIGTERM or SIGINT drains, the second stops at once."""
    loop = asyncio.get_running_loop()

    def stop(number: int) -> None:
        if life.is_draining:
            os._exit(128 + number)
        life.begin_shutdown()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop, number)
