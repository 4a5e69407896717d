"""How a run will publish, and why: chosen when nothing is said, refused when what is said contradicts itself."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import assert_never

from domain.errors import Problem, SpecError
from domain.pipelines.spec import Mode, PipelineSpec, Publish


@dataclass(frozen=True)
class Publishing:
    """The chosen way of publishing and the reason in words."""

    publish: Publish
    reason: str


def choose_publishing(
    spec: PipelineSpec,
    *,
    ordered: bool,
    full_refresh: bool = False,
    unproved: Mapping[str, str] | None = None,
    untrusted: str | None = None,
    unique: str | None = None,
) -> Publishing:
    """Choose `batch` unless something needs `run`; say which and why. `untrusted` is why a key gives no order.

    `unproved` are the guessed types that a later value may break; `unique` names a unique index of the destination that
    is over something else than the key of a merge.

    Raises:
        SpecError: `publish: batch` was asked for and cannot keep its promise (`spec.contradiction`).
    """
    whole = _why_run(spec, ordered=ordered, full_refresh=full_refresh, untrusted=untrusted)
    reason = whole or _why_unproved(unproved or {})
    asked = spec.destination.publish
    if reason is None:
        if asked is Publish.RUN:
            return Publishing(Publish.RUN, "the document asks for it")
        if asked is None and unique is not None:
            return Publishing(
                Publish.RUN, f"rows that pass on values of the table's unique index {unique} have to land together"
            )
        return Publishing(Publish.BATCH, "every batch and its checkpoint are one transaction, and nothing needs more")
    if asked is Publish.BATCH:
        raise SpecError(
            [
                Problem(
                    place="destination.publish",
                    code="spec.contradiction",
                    message=f"publish: batch is not possible because {reason}; leave publish out or use publish: run.",
                )
            ]
        )
    return Publishing(Publish.RUN, reason)


def _why_run(spec: PipelineSpec, *, ordered: bool, full_refresh: bool, untrusted: str | None) -> str | None:
    if full_refresh:
        return "a full refresh replaces the table in one step"
    if spec.destination.mode is Mode.REPLACE:
        return "mode: replace swaps the whole table in one step"
    if spec.destination.delete_missing is not None:
        return "delete_missing compares the destination with all keys of the run"
    for rule in spec.quality:
        if rule.needs_staging:
            return f"the rule {rule.label} is judged over the whole run before anything may be visible"
    if untrusted is not None:
        return untrusted
    if not ordered:
        return "the source has neither key nor cursor, so a resumed run has to start its staging again"
    return None


def _why_unproved(types: Mapping[str, str]) -> str | None:
    if not types:
        return None
    line = ", ".join(
        f'{_written(name)}: "{kind}"' if "(" in kind else f"{_written(name)}: {kind}" for name, kind in types.items()
    )
    return (
        "types of the files are guessed from their beginnings, and a later value may break a guess; to publish by "
        f"batch, declare them in the source: options: {{types: {{{line}}}}}"
    )


def _written(name: str) -> str:
    return name if re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", name) else json.dumps(name, ensure_ascii=False)


def guarantee(spec: PipelineSpec, publishing: Publishing) -> str:
    """Say the delivery guarantee in words."""
    seen = (
        "Readers see each batch as soon as it is committed"
        if publishing.publish is Publish.BATCH
        else "Readers see nothing of the run until all of it is published in one transaction"
    )
    match spec.destination.mode:
        case Mode.REPLACE:
            lands = "lands exactly once in place of what was there"
        case Mode.MERGE:
            key = ", ".join(spec.destination.key)
            lands = f"takes effect exactly once: the last row of each key ({key}) is what the table holds"
        case Mode.APPEND:
            lands = "lands exactly once"
        case _:
            assert_never(spec.destination.mode)
    return f"Every row of the read set {lands}. {seen}."


def merges_in_streams(spec: PipelineSpec) -> bool:
    """Whether several streams may merge at a time: the same key never falls into two of them (D8)."""
    partitions = spec.source.partitions
    if spec.destination.mode is not Mode.MERGE or partitions is None:
        return True
    touched = any(step.may_touch(partitions.column) for step in spec.transform)
    return partitions.column in spec.destination.key and not touched


@dataclass(frozen=True)
class ColumnForecast:
    """How a column lands: `lossless`, `checked` value by value (what does not convert is refused), or `refused` whole.

    `source` is None for what a transform makes; `native` is the destination's own name of the type.
    """

    name: str
    source: str | None
    landing: str
    native: str | None
    verdict: str


def judge_column(name: str, *, source: str | None, landing: str, native: str | None, is_text: bool) -> ColumnForecast:
    """Say how a column lands, from its type at the source and at the destination."""
    if native is None:
        return ColumnForecast(name, source, landing, None, "refused")
    is_checked = source is not None and (source != landing or (is_text and landing != "string"))
    return ColumnForecast(name, source, landing, native, "checked" if is_checked else "lossless")
