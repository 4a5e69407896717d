"""How old what destinations hold is, as far as this process has heard of runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

_MOST = 10_000


@dataclass
class Freshness:
    """The time as of which the destination of each pipeline is complete; one never becomes older by what is heard."""

    _as_of: dict[tuple[str, str], datetime] = field(default_factory=dict)

    def note(self, organization: str, pipeline: str, complete_as_of: str | None, begun: datetime) -> None:
        """Note a run that succeeded; a source without a clock is as it was when the run began."""
        as_of, known = _time(complete_as_of) or begun, self._as_of.get((organization, pipeline))
        if known is not None or len(self._as_of) < _MOST:
            self._as_of[organization, pipeline] = as_of if known is None else max(known, as_of)

    def names(self) -> Mapping[str, Sequence[str]]:
        """The pipelines that are known, by organization."""
        found: dict[str, list[str]] = {}
        for organization, pipeline in self._as_of:
            found.setdefault(organization, []).append(pipeline)
        return found

    def forget(self, organization: str, pipeline: str) -> None:
        """Of a pipeline that is gone, nothing is expected any more."""
        self._as_of.pop((organization, pipeline), None)

    def ages(self, now: datetime) -> Mapping[tuple[str, str], float]:
        """The seconds since then, by organization and pipeline."""
        return {work: max(0.0, (now - as_of).total_seconds()) for work, as_of in self._as_of.items()}


def _time(text: str | None) -> datetime | None:
    try:
        found = datetime.fromisoformat(text) if text is not None else None
    except ValueError:  # Of a year that Python does not know.
        return None
    return found.replace(tzinfo=UTC) if found is not None and found.tzinfo is None else found
