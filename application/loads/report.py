"""The run's report: counts, verdicts, streams, and the first errors of what a load has done."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from domain.first_errors import MOST_FIRST_ERRORS
from domain.loads.checkpoint import LaneState
from domain.loads.horizon import ReadEnd
from domain.loads.quarantine import LEFT
from domain.loads.read_set import ReadSet
from domain.loads.report import StreamReport
from domain.loads.way import Route
from domain.pipelines.spec import Mode, PipelineSpec
from domain.ports.data_store import Publication
from domain.quality.measures import Measures
from domain.quality.profile import Profile, ProfileSummary
from domain.runs.report import Hook, RunReport, Spent, StreamPart

_OF_RUN = (
    "published", "way", "way_because", "snapshots", "counts", "bytes_read", "batches", "retries", "seconds",
    "spent", "rows_per_second", "rules", "first_errors", "streams",
)  # fmt: skip
_IF_ANY_OF_RUN = (
    "python", "discarded_columns", "added_columns", "columns_left_out", "unconverted", "profiles", "merged",
    "delete_missing", "note", "landed", "warnings",
)  # fmt: skip
_OF_PUBLISHED = ("counts", "rules", "first_errors", "streams")
_IF_ANY_OF_PUBLISHED = ("note", "landed", "warnings", "merged", "profiles")
_OF_UNFINISHED = ("read_set", "watermark", "published", "counts", "rules", "first_errors", "streams")


@dataclass(frozen=True)
class Loaded:
    """A read set that was streamed and published, and by which way."""

    publication: Publication
    streams: Sequence[StreamReport]
    route: Route
    hooks: Sequence[Hook] = ()
    discarded: Sequence[str] = ()
    added: Sequence[str] = ()
    left_out: Sequence[str] = ()


_HIDDEN_FROM_MERGE = (
    "row-level security is on for the destination table and this role: a merge neither updates nor deletes rows that "
    "its policies hide, and a key of theirs may be there twice; write as the owner or as a role with BYPASSRLS, or "
    "give the key a unique index"
)


def run_report(read_set: ReadSet, loaded: Loaded) -> RunReport:
    """Gather what the streams of a published read set did. `adopted` tells that an earlier run had begun it."""
    publication, streams, end = loaded.publication, loaded.streams, read_set.plan.end
    measures = publication.measures
    seconds = max((report.seconds for report in streams), default=0.0)
    read = sum(report.rows_read for report in streams)
    own = RunReport(
        read_set=read_set.id,
        adopted=read_set.is_adopted,
        watermark=read_set.plan.hi,
        complete_as_of=end.complete_as_of if end is not None else None,
        cursor=_words(end),
        published="run" if read_set.shadow else "batch",
        way=loaded.route.way.value,
        way_because=loaded.route.reason,
        snapshots=len(measures.snapshots) or 1,
        counts=publication.counts,
        bytes_read=sum(report.bytes_read for report in streams),
        batches=sum(report.batches for report in streams),
        retries=sum(report.retries for report in streams),
        seconds=round(seconds, 3),
        spent=sum((report.spent for report in streams), Spent()),
        rows_per_second=round(read / seconds) if seconds else None,
        rules=publication.judgement.results,
        first_errors=measures.first_errors,
        streams=tuple(report.part for report in streams),
        python=tuple(loaded.hooks),
        discarded_columns=tuple(loaded.discarded),
        added_columns=tuple(loaded.added),
        columns_left_out=tuple(loaded.left_out),
        unconverted=measures.unconverted,
        profiles=_summaries(measures.profiles),
        merged=measures.merged,
        delete_missing=measures.delete_missing,
        note=read_set.plan.note,
        landed=measures.landed,
        warnings=_warnings(read_set, measures),
    )
    named = own.saying("read_set", "adopted", "watermark", *_named(end), *_OF_RUN, if_any=_IF_ANY_OF_RUN)
    return named.after(read_set.completed_first)


def published_report(state: LaneState, read_set: ReadSet) -> RunReport:
    """Rebuild the report of a read set that was published by a worker that died before saying so."""
    memory, end = state.memory, state.memory.latest_end
    measures = memory.measures
    own = RunReport(
        read_set=state.read_set_id,
        adopted=read_set.is_adopted,
        watermark=state.watermark,
        complete_as_of=end.complete_as_of if end is not None else None,
        cursor=_words(end),
        counts=state.counts,
        rules=memory.verdicts,
        first_errors=measures.first_errors,
        note=read_set.plan.note,
        landed=measures.landed,
        warnings=_warnings(read_set, measures),
        merged=measures.merged,
        profiles=_summaries(memory.profiles),
    )
    named = own.saying("read_set", "adopted", "watermark", *_named(end), *_OF_PUBLISHED, if_any=_IF_ANY_OF_PUBLISHED)
    return named.after(read_set.completed_first)


def unfinished_report(state: LaneState) -> RunReport | None:
    """Say what a run that did not get to its end has committed, stream by stream; None where nothing is open."""
    if not state.is_loading:
        return None
    read_set = state.memory.read_set
    errors = tuple(error for stream in state.streams for error in stream.measures.first_errors)
    own = RunReport(
        read_set=state.read_set_id,
        watermark=state.watermark,
        counts=state.counts,
        first_errors=errors[:MOST_FIRST_ERRORS],
        streams=tuple(
            StreamPart(stream=s.stream, state=s.state, seq=s.seq, counts=s.counts).saying(
                "stream", "state", "seq", "counts"
            )
            for s in state.streams
        ),
    )
    return own.saying(*_OF_UNFINISHED).after(read_set.completed_first if read_set is not None else None)


def _warnings(read_set: ReadSet, measures: Measures) -> tuple[str, ...]:
    """What hides rows at the source, rows that a replay has left, and those that were written and that the table does
    not show.
    """
    told, landed = read_set.plan.warnings, measures.landed
    if measures.left:
        told = (*told, f"{measures.left} refused rows stay in quarantine, {LEFT}")
    if landed is not None and landed.hides:
        told = (*told, _HIDDEN_FROM_MERGE)
    if landed is None or landed.shown == landed.written:
        return told
    if landed.shown is None:
        found = (
            f"{landed.written} rows were written, but a view, a trigger, a rule or row-level security may hide or "
            "suppress some, and how many the table shows cannot be counted: the rows bear no mark of this run alone"
        )
    else:
        found = (
            f"{landed.written} rows were written, and the table shows {landed.shown} of them: a view, a trigger, a "
            "rule or row-level security hides, suppresses or adds rows"
        )
    return (*told, found)


def left_by_abandoned(state: LaneState, spec: PipelineSpec) -> tuple[str, ...]:
    """Say what a read set that is given up leaves in the table: whoever was loading it, here or elsewhere, had
    committed it.
    """
    if not state.is_loading or state.memory.stage or not state.counts.produced:
        return ()
    again = "land beside them" if spec.destination.mode is Mode.APPEND else "take their place"
    return (
        f"the {state.counts.produced} rows that the abandoned read set {state.read_set_id} had landed in "
        f"{spec.destination.table} stay there; where this run reads them again, they {again}",
    )


def _words(end: ReadEnd | None) -> Mapping[str, tuple[str, ...]]:
    return end.words if end is not None else {}


def _named(end: ReadEnd | None) -> tuple[str, ...]:
    """What a report says of the end of a read by a cursor."""
    if end is None:
        return ()
    return ("complete_as_of", "cursor") if end.words else ("complete_as_of",)


def _summaries(profiles: Mapping[str, Profile]) -> Mapping[str, ProfileSummary]:
    return {name: profile.summary for name, profile in profiles.items()}
