"""Who may take a lane over: a fence strictly above what stands there, or the claim that put it there."""

import secrets

from domain.errors import FencedError
from domain.loads.checkpoint import LaneState
from domain.runs.lane import Lane


def new_token() -> str:
    """What a take-over puts beside its fence; nobody else has the same."""
    return secrets.token_hex(16)


def check_above(state: LaneState, lane: Lane, fence: int, token: str | None) -> None:
    """Refuse a fence that is not above the lane's, unless it was put there by the claim that shows its token.

    Two records databases, or one and an older copy of it, may both count up to the same fence.

    Raises:
        FencedError: it is refused; the error names the lane's fence.
    """
    if state.fence > fence or (state.fence == fence and (token is None or state.token != token)):
        raise FencedError(f"The lane {lane} has been taken over under fence {state.fence}.", fence=state.fence)
