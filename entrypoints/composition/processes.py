"""Processes of this machine as leases know them, for whoever tells a living one from one that is gone."""

from infrastructure.metadata import lease_holders


def own_mark() -> str:
    """What names this process, and no later one of the same number."""
    return lease_holders.this_process()


def is_gone(mark: str) -> bool:
    """Whether the process that a mark names is no more."""
    return lease_holders.is_gone(mark)
