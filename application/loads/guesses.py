"""What becomes of guessed types: a table's own types go before them, and a value that breaks one is told by
its place.
"""

from dataclasses import replace

from domain.errors import ConversionError
from domain.first_errors import FirstError
from domain.loads.checkpoint import StreamState
from domain.loads.read_set import SourcePlan
from domain.pipelines.spec import PipelineSpec
from domain.ports.data_store import IReader, JudgedBatch, SourceBatch
from domain.ports.engine import StreamTask
from domain.ports.transformer import TransformPlan
from domain.quality.measures import Measures
from domain.stores.table import TableSchema


def unproved(plan: SourcePlan) -> dict[str, str]:
    """The guessed types that a value which was not looked at may break."""
    return {name: kind for name, kind in plan.columns if name in plan.unproved}


def settled(spec: PipelineSpec, plan: SourcePlan, existing: TableSchema) -> SourcePlan:
    """Give columns that nobody declared the types that they have in the table, if no step may touch them.

    Otherwise the next file would decide anew what its texts are: `12.5` as a decimal, spelled `12.50`, in a column of
    text.
    """
    declared = spec.source.options.get("types") or {}
    names = TransformPlan(source=(), target=existing.columns, normalizes=spec.destination.normalizes)
    columns, guessed, changed = [], set(plan.guessed), set[str]()
    landing = names.landing_names(name for name, _ in plan.columns)
    for (name, kind), landing_name in zip(plan.columns, landing, strict=True):
        there = existing.column(landing_name)
        is_free = name not in declared and not any(step.may_touch(name) for step in spec.transform)
        if is_free and there is not None and there.type != kind and not there.type.startswith("native:"):
            kind = there.type
            changed.add(name)
        columns.append((name, kind))
    guessed |= changed
    guessed = {name for name, kind in columns if name in guessed and kind != "string"}
    unproved = guessed & (changed | set(plan.unproved))
    return replace(
        plan,
        columns=tuple(columns),
        guessed=tuple(name for name, _ in columns if name in guessed),
        unproved=tuple(name for name, _ in columns if name in unproved),
    )


async def not_converted(
    task: StreamTask, state: StreamState, batch: SourceBatch, judged: JudgedBatch, reader: IReader
) -> ConversionError:
    """Say which value did not convert, where it stands, and what to write."""
    counts = state.counts
    count = (
        f"{counts.failed} of {counts.read} rows did not convert, more than on_error allows; the batch was not "
        "committed."
    )
    first = _first_conversion(judged.measures)
    if first is None:
        known = next((error.message or "" for error in _conversions(state.measures)), "")
        return ConversionError(f"{known}{'. ' if known else ''}{count}")
    place = await reader.place(batch, first.ordinal or 0)
    column = first.column or ""
    told = f"the value of {column}{f' ({first.shape})' if first.shape else ''}"
    said = _said(task, column, told) or f"{told} does not convert"
    error = ConversionError(f"{place}: {said}. {count}" if place else f"{said}. {count}")
    error.first_errors = judged.measures.first_errors
    return error


def _said(task: StreamTask, column: str, told: str) -> str | None:
    plan, landing = task.read_set.plan, task.transform.landing_name(column)
    there = next((c.type for c in task.transform.target if c.name == landing), None)
    kind = dict(plan.columns).get(column)
    if there is not None:
        another = (
            f"run with another type in options: {{types: {{{column}: string}}}} of the source and --full-refresh, "
            "which makes the table anew, "
            if plan.is_text and column in dict(plan.columns)
            else ""
        )
        return (
            f"{told} is not exactly one of type {there}, which the column of {task.target.table} has: change "
            f"that, {another}or let on_error keep such rows aside"
        )
    if column not in plan.guessed:
        return None
    return (
        f"{told} is not exactly one of type {kind}, which the beginnings of the files seemed to be of: write options: "
        f"{{types: {{{column}: string}}}} in the source, and run with --full-refresh if a table of other types is "
        "there"
    )


def _first_conversion(measures: Measures) -> FirstError | None:
    return next((error for error in _conversions(measures) if error.ordinal is not None), None)


def _conversions(measures: Measures) -> list[FirstError]:
    return [error for error in measures.first_errors if error.is_conversion]
