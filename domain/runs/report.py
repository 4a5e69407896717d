"""What a run tells of itself once it is at its end: the report that is stored with it and shown.

A report says of each thing that it names, in the order in which it names them: what that is depends on how the run
ended and on the version that wrote it, and nothing else is known of it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, Self

from domain.first_errors import MOST_FIRST_ERRORS, FirstError
from domain.quality.measures import Counts, LandedRows, RowChanges
from domain.quality.profile import ProfileSummary
from domain.rule_results import RuleResult

Hook = Mapping[str, str]
"""Which Python function a step has called, and of which text it was."""

Readers = Mapping[str, Callable[[Any], Any]]
"""How fields are rebuilt that are not plain JSON values."""


@dataclass(frozen=True)
class Spent:
    """Seconds of each stage of streams: waiting for the source, judging, committing. Stages and streams overlap, so
    together they may be more than the run has taken.
    """

    read: float = 0.0
    judge: float = 0.0
    write: float = 0.0

    def __add__(self, other: "Spent") -> "Spent":
        return Spent(self.read + other.read, self.judge + other.judge, self.write + other.write)

    def to_json(self) -> dict[str, float]:
        """Return plain JSON values, to the millisecond."""
        return {name: round(value, 3) for name, value in vars(self).items()}

    @classmethod
    def from_json(cls, value: Mapping[str, float]) -> "Spent":
        """Rebuild what `to_json` gave, in this version or another."""
        return cls(**{known.name: float(value.get(known.name, 0.0)) for known in fields(cls)})


@dataclass(frozen=True)
class Told:
    """Something that says of the fields in `names`, in this order, and of no others."""

    names: tuple[str, ...] = ()
    _read: ClassVar[Readers] = {}

    def saying(self, *names: str, if_any: Sequence[str] = ()) -> Self:
        """The same, saying of these fields, and of those of others that there is something of."""
        found = [name for name in if_any if getattr(self, name)]
        return replace(self, names=(*names, *found))

    def only(self, names: frozenset[str]) -> Self:
        """What it says of some fields; the rest is gone."""
        kept = [name for name in self.names if name in names]
        return type(self)(names=tuple(kept), **{name: getattr(self, name) for name in kept})

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {name: _plain(getattr(self, name)) for name in self.names}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Rebuild what `to_json` gave, in this version or an earlier one."""
        known = {found.name for found in fields(cls)} - {"names"}
        told = {name: _read_as(cls._read.get(name), item) for name, item in value.items() if name in known}
        return cls(names=tuple(told), **told)


@dataclass(frozen=True)
class StreamPart(Told):
    """What is told of one stream. `counts` and `seq` are its totals over all attempts; `rows_read`, `batches`,
    `bytes_read`, `seconds` and `retries` are those of the attempt that ended it.
    """

    stream: str = ""
    state: str | None = None
    counts: Counts = field(default_factory=Counts)
    seq: int = 0
    rows_read: int = 0
    batches: int = 0
    bytes_read: int = 0
    seconds: float = 0.0
    retries: int = 0
    interrupted: bool = False
    errors: tuple[FirstError, ...] = ()
    merged: RowChanges | None = None
    rows_per_second: int | None = None
    spent: Spent = field(default_factory=Spent)
    _read: ClassVar[Readers] = {
        "counts": Counts.from_json,
        "spent": Spent.from_json,
        "errors": lambda found: tuple(map(FirstError.from_json, found)),
        "merged": RowChanges.from_json,
    }


@dataclass(frozen=True)
class ReadSetPart(Told):
    """One of the read sets that a run has completed. `adopted` tells that an earlier run had begun it."""

    read_set: str | None = None
    adopted: bool = False
    watermark: str | None = None
    counts: Counts = field(default_factory=Counts)
    _read: ClassVar[Readers] = {"counts": Counts.from_json}


@dataclass(frozen=True)
class RunReport(Told):
    """What a run did. `published` is `run` or `batch`, None where nothing was; `cursor` says in words why a read by a
    cursor ended where it did. `completed_first` is the report of a read set that another run had left, `read_sets` are
    that and the run's own.
    """

    read_set: str | None = None
    adopted: bool = False
    watermark: str | None = None
    complete_as_of: str | None = None
    cursor: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    published: str | None = None
    way: str | None = None
    way_because: str | None = None
    snapshots: int = 0
    counts: Counts = field(default_factory=Counts)
    bytes_read: int = 0
    batches: int = 0
    retries: int = 0
    seconds: float = 0.0
    spent: Spent = field(default_factory=Spent)
    rows_per_second: int | None = None
    rules: tuple[RuleResult, ...] = ()
    first_errors: tuple[FirstError, ...] = ()
    streams: tuple[StreamPart, ...] = ()
    python: tuple[Hook, ...] = ()
    discarded_columns: tuple[str, ...] = ()
    added_columns: tuple[str, ...] = ()
    columns_left_out: tuple[str, ...] = ()
    unconverted: Mapping[str, int] = field(default_factory=dict)
    profiles: Mapping[str, ProfileSummary] = field(default_factory=dict)
    merged: RowChanges | None = None
    delete_missing: str | None = None
    note: str | None = None
    landed: LandedRows | None = None
    warnings: tuple[str, ...] = ()
    completed_first: "RunReport | None" = None
    read_sets: tuple[ReadSetPart, ...] = ()
    _read: ClassVar[Readers] = {
        "cursor": lambda found: {name: tuple(words) for name, words in found.items()},
        "counts": Counts.from_json,
        "spent": Spent.from_json,
        "rules": lambda found: tuple(map(RuleResult.from_json, found)),
        "first_errors": lambda found: tuple(map(FirstError.from_json, found)),
        "streams": lambda found: tuple(map(StreamPart.from_json, found)),
        "python": tuple,
        "discarded_columns": tuple,
        "added_columns": tuple,
        "columns_left_out": tuple,
        "profiles": lambda found: {name: ProfileSummary.from_json(profile) for name, profile in found.items()},
        "merged": RowChanges.from_json,
        "landed": LandedRows.from_json,
        "warnings": tuple,
        "completed_first": lambda found: RunReport.from_json(found),
        "read_sets": lambda found: tuple(map(ReadSetPart.from_json, found)),
    }

    @classmethod
    def of_counts(cls, counts: Counts) -> "RunReport":
        """A report that says nothing else."""
        return cls(counts=counts).saying("counts")

    @property
    def before_more(self) -> "RunReport":
        """What is kept of it where the run reads on."""
        return self.only(frozenset(self.names) - {"streams", "profiles", "python"})

    def blaming(self, errors: Sequence[FirstError], rules: Sequence[RuleResult]) -> "RunReport":
        """The same that blames rows or rules, as far as there are any: those for which something was not committed."""
        found = replace(self, first_errors=tuple(errors) or self.first_errors, rules=tuple(rules) or self.rules)
        names = [name for name, given in (("rules", rules), ("first_errors", errors)) if given]
        return replace(found, names=_and(self.names, *names))

    def after(self, first: "RunReport | None") -> "RunReport":
        """The report of a run over all that it read: what another run had left, and its own."""
        if first is None:
            return self
        seconds = (
            round(sum(part.seconds or 0 for part in (first, self)), 3) if "seconds" in self.names else self.seconds
        )
        rate = self.rows_per_second
        if "seconds" in self.names and seconds:
            moved = sum((part.rows_per_second or 0) * part.seconds for part in (first, self))
            rate = round(moved / seconds)
        return replace(
            self,
            bytes_read=first.bytes_read + self.bytes_read,
            batches=first.batches + self.batches,
            retries=first.retries + self.retries,
            seconds=seconds,
            spent=first.spent + self.spent,
            rows_per_second=rate,
            adopted=True,
            counts=first.counts + self.counts,
            first_errors=(first.first_errors + self.first_errors)[:MOST_FIRST_ERRORS],
            completed_first=first,
            read_sets=(first.part, self.part),
            names=_and(self.names, "adopted", "counts", "first_errors", "completed_first", "read_sets"),
        )

    @property
    def part(self) -> ReadSetPart:
        """What is told of its read set beside others."""
        return ReadSetPart(
            ("read_set", "adopted", "watermark", "counts"), self.read_set, self.adopted, self.watermark, self.counts
        )


def _and(names: tuple[str, ...], *more: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*names, *more)))


def _read_as(read: Callable[[Any], Any] | None, value: Any) -> Any:
    return read(value) if read is not None and value is not None else value


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    return value.to_json() if hasattr(value, "to_json") else value
