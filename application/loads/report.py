"""The run's report: counts, verdicts, streams, and the first errors, in plain JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from domain.loads.checkpoint import LaneState
from domain.loads.horizon import ReadEnd
from domain.loads.read_set import ReadSet
from domain.loads.report import StreamReport
from domain.loads.way import Route
from domain.pipelines.spec import Mode, PipelineSpec
from domain.ports.data_store import Publication
from domain.quality.profile import summary


@dataclass(frozen=True)
class Loaded:
    """A read set that was streamed and published, and by which way."""

    publication: Publication
    streams: Sequence[StreamReport]
    route: Route
    hooks: Sequence[Mapping[str, str]] = ()
    discarded: Sequence[str] = ()
    added: Sequence[str] = ()
    left_out: Sequence[str] = ()


def run_report(read_set: ReadSet, loaded: Loaded) -> dict[str, Any]:
    """Gather what the streams of a published read set did. `adopted` tells that an earlier run had begun it."""
    publication, streams = loaded.publication, loaded.streams
    seconds = max((report.seconds for report in streams), default=0.0)
    read = sum(report.rows_read for report in streams)
    own = {
        "read_set": read_set.id,
        "adopted": read_set.is_adopted,
        "watermark": read_set.plan.hi,
        **_end(read_set.plan.end),
        "published": "run" if read_set.shadow else "batch",
        "way": loaded.route.way.value,
        "way_because": loaded.route.reason,
        "snapshots": len(publication.stats.get("snapshots", ())) or 1,
        "counts": publication.counts.as_dict(),
        "bytes_read": sum(report.bytes_read for report in streams),
        "batches": sum(report.batches for report in streams),
        "retries": sum(report.retries for report in streams),
        "seconds": round(seconds, 3),
        "rows_per_second": round(read / seconds) if seconds else None,
        "rules": [vars(result) for result in publication.judgement.results],
        "first_errors": publication.stats.get("first_errors", []),
        "streams": [report.as_dict() for report in streams],
        **({"python": [dict(hook) for hook in loaded.hooks]} if loaded.hooks else {}),
        **({"discarded_columns": list(loaded.discarded)} if loaded.discarded else {}),
        **({"added_columns": list(loaded.added)} if loaded.added else {}),
        **({"columns_left_out": list(loaded.left_out)} if loaded.left_out else {}),
        **({"unconverted": unconverted} if (unconverted := publication.stats.get("unconverted")) else {}),
        **_profiles(publication.stats.get("profiles", {})),
        **_merged(publication.stats),
        **({"delete_missing": note} if (note := publication.stats.get("delete_missing")) else {}),
        **({"note": read_set.plan.note} if read_set.plan.note else {}),
        **_warned(read_set, publication.stats),
    }
    return in_total(own, read_set.completed_first)


def published_report(state: LaneState, read_set: ReadSet) -> dict[str, Any]:
    """Rebuild the report of a read set that was published by a worker that died before saying so."""
    stats: Mapping[str, Any] = state.stats.get("stats", {})
    own = {
        "read_set": state.read_set_id,
        "adopted": read_set.is_adopted,
        "watermark": state.watermark,
        **_end(state.end),
        "counts": state.counts.as_dict(),
        "rules": state.stats.get("verdicts", []),
        "first_errors": stats.get("first_errors", []),
        "streams": [],
        **({"note": read_set.plan.note} if read_set.plan.note else {}),
        **_warned(read_set, stats),
        **_merged(stats),
        **_profiles(state.stats.get("profiles", {})),
    }
    return in_total(own, read_set.completed_first)


def _warned(read_set: ReadSet, stats: Mapping[str, Any]) -> dict[str, Any]:
    """What hides rows at the source, and rows that were written and that the table does not show."""
    warnings, landed = list(read_set.plan.warnings), stats.get("landed")
    if landed is None:
        return {"warnings": warnings} if warnings else {}
    written, shown = landed["written"], landed["shown"]
    if shown is None:
        warnings.append(
            f"{written} rows were written, but a trigger, a rule or row-level security of the table may hide or "
            "suppress some, and how many it shows cannot be counted: the rows bear no mark of this run alone"
        )
    elif shown != written:
        warnings.append(
            f"{written} rows were written, and the table shows {shown} of them: a trigger, a rule or row-level "
            "security hides, suppresses or adds rows"
        )
    return {"landed": dict(landed), **({"warnings": warnings} if warnings else {})}


def left_by_abandoned(state: LaneState, spec: PipelineSpec) -> tuple[str, ...]:
    """Say what a read set that is given up leaves in the table: whoever was loading it, here or elsewhere, had
    committed it.
    """
    shadow = (state.stats.get("read_set") or {}).get("shadow")
    if not state.is_loading or shadow or not state.counts.produced:
        return ()
    again = "land beside them" if spec.destination.mode is Mode.APPEND else "take their place"
    return (
        f"the {state.counts.produced} rows that the abandoned read set {state.read_set_id} had landed in "
        f"{spec.destination.table} stay there; where this run reads them again, they {again}",
    )


def told_first(report: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept of the report of a read set that the run completed for another, before it read on."""
    return {name: value for name, value in report.items() if name not in ("streams", "profiles", "python")}


def in_total(own: Mapping[str, Any], first: Mapping[str, Any] | None) -> dict[str, Any]:
    """The report of a run over all that it read: what another run had left, and its own; each is told in
    `read_sets`.
    """
    if first is None:
        return dict(own)
    both = [first, own]
    added = {
        name: round(sum(part.get(name) or 0 for part in both), 3)
        for name in ("bytes_read", "batches", "retries", "seconds")
        if name in own
    }
    if added.get("seconds"):
        moved = sum((part.get("rows_per_second") or 0) * (part.get("seconds") or 0) for part in both)
        added["rows_per_second"] = round(moved / added["seconds"])
    return {
        **own,
        **added,
        "adopted": True,
        "counts": {name: sum(part["counts"][name] for part in both) for name in own["counts"]},
        "first_errors": [error for part in both for error in part.get("first_errors", [])][:10],
        "completed_first": dict(first),
        "read_sets": [
            {
                "read_set": part.get("read_set"),
                "adopted": part.get("adopted", False),
                "watermark": part.get("watermark"),
                "counts": part["counts"],
            }
            for part in both
        ],
    }


def _end(end: ReadEnd | None) -> dict[str, Any]:
    return end_body(end) if end is not None else {}


def end_body(end: ReadEnd) -> dict[str, Any]:
    """Why a read by a cursor ended where it did."""
    words = {"held_back": end.held_back, "assumed": end.assumed, "unknown": end.unknown}
    said = {name: list(sentences) for name, sentences in words.items() if sentences}
    return {"complete_as_of": end.complete_as_of, **({"cursor": said} if said else {})}


def _profiles(found: Mapping[str, Any]) -> dict[str, Any]:
    return {"profiles": {name: summary(profile) for name, profile in found.items()}} if found else {}


def _merged(stats: Mapping[str, Any]) -> dict[str, Any]:
    return {"merged": dict(stats["merged"])} if "merged" in stats else {}


def unfinished_report(state: LaneState) -> dict[str, Any] | None:
    """Say what a run that did not get to its end has committed, stream by stream; None where nothing is open."""
    if not state.is_loading:
        return None
    own = {
        "read_set": state.read_set_id,
        "watermark": state.watermark,
        "published": None,
        "counts": state.counts.as_dict(),
        "rules": [],
        "first_errors": [error for stream in state.streams for error in stream.stats.get("first_errors", [])][:10],
        "streams": [
            {"stream": s.stream, "state": s.state, "seq": s.seq, "counts": s.counts.as_dict()} for s in state.streams
        ],
    }
    return in_total(own, state.stats.get("read_set", {}).get("completed_first"))
