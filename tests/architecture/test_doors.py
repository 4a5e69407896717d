"""What doors are given: use cases, and nothing that they would have to know how to use."""

from typing import get_type_hints

from application.connections.open_stores import OpenStores
from domain import ports
from entrypoints.use_cases import UseCases


def test_doors_get_use_cases_and_no_records_queue_or_stores() -> None:
    given = get_type_hints(UseCases)
    behind = {
        name: kind.__module__
        for name, kind in given.items()
        if kind is OpenStores or (kind.__module__.startswith(f"{ports.__name__}.") and name != "telemetry")
    }
    assert len(given) > 15
    assert behind == {}
