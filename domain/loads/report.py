"""What a stream did: the commit message of a partition, gathered into the run's report."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from domain.quality.measures import Counts


@dataclass(frozen=True)
class StreamReport:
    """What one attempt at one stream did. `counts` and `seq` are the stream's totals over all attempts; `rows_read`,
    `batches`, `bytes_read` and `seconds` are of this one.
    """

    stream: str
    counts: Counts
    seq: int
    rows_read: int = 0
    batches: int = 0
    bytes_read: int = 0
    seconds: float = 0.0
    retries: int = 0
    interrupted: bool = False
    stats: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values with rows per second of this attempt."""
        value = asdict(self)
        stats = value.pop("stats")
        value["errors"] = stats.get("first_errors", [])
        if "merged" in stats:
            value["merged"] = stats["merged"]
        value["rows_per_second"] = round(self.rows_read / self.seconds) if self.seconds else None
        return value
