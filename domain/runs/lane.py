"""The sequence of runs that share a position, and who owns it."""

from dataclasses import dataclass

MAIN_LANE = "main"


@dataclass(frozen=True)
class Lane:
    """The sequence of runs that share a position: `main`, one parameter set, or the replays."""

    organization: str
    pipeline: str
    name: str = MAIN_LANE

    @property
    def is_main(self) -> bool:
        """The lane of the pipeline's own position."""
        return self.name == MAIN_LANE

    def __str__(self) -> str:
        return f"{self.organization}/{self.pipeline}/{self.name}"


@dataclass(frozen=True)
class LaneOwner:
    """Who has taken a lane over: whatever earlier ones, with a lower fence, still hold may be taken from them."""

    lane: Lane
    fence: int
