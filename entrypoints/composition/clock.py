"""The clock of a door that has composed nothing yet."""

from domain.ports.runtime import IClock
from infrastructure.clock import SystemClock

CLOCK: IClock = SystemClock()
