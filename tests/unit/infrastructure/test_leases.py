"""The lease of a claim, as its holder sees it."""

from datetime import timedelta

import pytest

from domain.runs.run import LEASE_LOST
from infrastructure.clock import monotonic
from infrastructure.metadata.lease_keeper import HeldLease

LEASE = timedelta(seconds=1)


@pytest.mark.invariant("L2")
def test_lease_that_was_lost_stays_lost_though_a_renewal_gets_through_late() -> None:
    lease = HeldLease("run", 1, LEASE)
    assert lease.stop_reason() is None

    lease.renewed_at -= 2 * LEASE.total_seconds()
    assert lease.stop_reason() == LEASE_LOST

    lease.renewed_at = monotonic()
    assert lease.stop_reason() == LEASE_LOST
