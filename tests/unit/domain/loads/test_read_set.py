"""The ids of read sets follow each other whatever clocks say."""

from uuid import UUID

import pytest

from domain.loads.read_set import id_after

EARLIER, LATER = "01900000-0000-7000-8000-000000000001", "01900000-0fff-7fff-bfff-fffffffffff0"


@pytest.mark.invariant("L2")
@pytest.mark.parametrize("suffix", ["", "-p"])
def test_an_id_by_a_clock_that_is_behind_comes_a_millisecond_after_the_latest(suffix: str) -> None:
    found = id_after(EARLIER, f"{LATER}{suffix}")

    assert found == "01900000-1000-7000-8000-000000000001"
    assert UUID(found).version == 7
    assert f"{LATER}{suffix}" < found < id_after("01890000-0000-7abc-8000-000000000002", f"{found}{suffix}")


@pytest.mark.parametrize("latest", [None, "", EARLIER, f"{EARLIER}-p", "r1", "ffffffff-ffff-ffff-ffff-ffffffffffff"])
def test_any_other_id_stays_as_it_is(latest: str | None) -> None:
    assert id_after(LATER, latest) == LATER
