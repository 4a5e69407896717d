"""Who may act on a lane and write to a stream, and what a lost answer to COMMIT means; the same in every store.

A store asks in the transaction of what it does, while it holds the row that it asks about.
"""

from dataclasses import dataclass

from domain.errors import FencedError, PlatformError, StoreUnavailableError
from domain.loads.checkpoint import LOADING, CheckpointUpdate, LaneState
from domain.runs.lane import Lane


@dataclass(frozen=True)
class Ownership:
    """An owner of a lane: its fence, and the token of its latest take-over, None before the first."""

    lane: Lane
    fence: int
    token: str | None

    def check_above(self, state: LaneState) -> None:
        """Refuse a fence that is not above the lane's, unless it was put there by the claim that shows its token.

        Two records databases, or one and an older copy of it, may both count up to the same fence.

        Raises:
            FencedError: it is refused; the error names the lane's fence.
        """
        if state.fence > self.fence or (
            state.fence == self.fence and (self.token is None or state.token != self.token)
        ):
            raise FencedError(f"The lane {self.lane} has been taken over under fence {state.fence}.", fence=state.fence)

    def check_holds(self, fence: int | None, token: str | None) -> None:
        """Refuse to act on a lane whose head shows another fence or token; None where it has no head.

        Raises:
            FencedError: it does.
        """
        if (fence, token) != (self.fence, self.token):
            raise FencedError(f"The lane {self.lane} has been taken over by a newer owner.", fence=fence)


@dataclass(frozen=True)
class Standing:
    """What the checkpoint of a stream shows of who may write to it, and of how far it has come."""

    fence: int
    token: str | None
    read_set_id: str | None
    seq: int
    state: str


@dataclass(frozen=True)
class StreamOwnership:
    """A writer of a stream: its fence, the token of one take-over, and the read set that was open then."""

    lane: Lane
    stream: str
    read_set_id: str
    fence: int
    token: str

    def before(self, checkpoint: CheckpointUpdate) -> Standing:
        """How the stream must stand for a batch to be written."""
        return Standing(self.fence, self.token, self.read_set_id, checkpoint.seq - 1, LOADING)

    def check_holds(self, fence: int | None, token: str | None) -> None:
        """Refuse to begin what takes long where the stream shows another fence or token.

        Raises:
            FencedError: it does.
        """
        if (fence, token) != (self.fence, self.token):
            raise self.fenced()

    def has_committed(self, checkpoint: CheckpointUpdate, seq: int, fence: int, token: str | None) -> bool:
        """Say whether a batch is durable, of what the stream shows once nobody else holds its row. A seal may have come
        behind it.
        """
        return (seq, fence, token) == (checkpoint.seq, self.fence, self.token)

    def fenced(self) -> FencedError:
        """Say that the stream does not stand as it must."""
        return FencedError(f"Stream {self.stream} of {self.lane} belongs to a newer owner; nothing was written.")


def may_have_committed(error: PlatformError, *, is_interrupted: bool) -> bool:
    """Whether a batch whose commit failed may be durable all the same: then its stream says so, and where it is not,
    the batch may be written once more. Who was interrupted writes nothing any more, and a full disk has said no.
    """
    return isinstance(error, StoreUnavailableError) and error.code != "disk_full" and not is_interrupted
