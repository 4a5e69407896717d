"""Use cases as spans: those that are awaited and those that are not."""

import pytest

from application.telemetry import traced
from domain.errors import NotFoundError
from tests.fakes.telemetry import KeptTelemetry


class Orders:
    """A use case of two ways to be called."""

    def count(self, limit: int) -> int:
        """Count them."""
        if limit < 0:
            raise NotFoundError("No.", code="orders.none")
        return limit

    async def read(self, *, limit: int) -> list[int]:
        """Read them."""
        return list(range(self.count(limit)))


async def test_call_is_a_span_with_its_error_until_it_has_ended() -> None:
    telemetry, orders = KeptTelemetry(), Orders()
    count = traced(telemetry, "count")(orders.count)
    read = traced(telemetry, "read")(orders.read)

    pending = read(limit=2)
    assert telemetry.spans == []  # Nobody has awaited it yet.
    assert (await pending, count(3)) == ([0, 1], 3)
    with pytest.raises(NotFoundError):
        count(-1)
    with pytest.raises(NotFoundError):
        await read(limit=-1)

    found = [(span.name, span.status and span.status[0]) for span in telemetry.spans]
    assert found == [("read", None), ("count", None), ("count", "orders.none"), ("read", "orders.none")]
    assert (read.__name__, count.__doc__) == ("read", "Count them.")
    assert telemetry.current_trace() is None
