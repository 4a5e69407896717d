"""How a run will publish, and why: chosen when nothing is said, refused when what is said contradicts itself."""

from dataclasses import dataclass

from domain.errors import Problem, SpecError
from domain.pipelines.spec import Mode, PipelineSpec, Publish


@dataclass(frozen=True)
class Publishing:
    """The chosen way of publishing and the reason in words."""

    publish: Publish
    reason: str


def choose_publishing(spec: PipelineSpec, *, ordered: bool, full_refresh: bool = False) -> Publishing:
    """Choose `batch` unless something needs `run`; say which and why.

    Raises:
        SpecError: `publish: batch` was asked for and cannot keep its promise (`spec.contradiction`).
    """
    reason = _why_run(spec, ordered=ordered, full_refresh=full_refresh)
    asked = spec.destination.publish
    if reason is None:
        if asked is Publish.RUN:
            return Publishing(Publish.RUN, "the document asks for it")
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


def _why_run(spec: PipelineSpec, *, ordered: bool, full_refresh: bool) -> str | None:
    if full_refresh:
        return "a full refresh replaces the table in one step"
    if spec.destination.mode is Mode.REPLACE:
        return "mode: replace swaps the whole table in one step"
    for rule in spec.quality:
        if rule.needs_staging:
            return f"the rule {rule.label} is judged over the whole run before anything may be visible"
    if not ordered:
        return "the source has neither key nor cursor, so a resumed run has to start its staging again"
    return None


def guarantee(spec: PipelineSpec, publishing: Publishing) -> str:
    """Say the delivery guarantee in words."""
    seen = (
        "Readers see each batch as soon as it is committed"
        if publishing.publish is Publish.BATCH
        else "Readers see nothing of the run until all of it is published in one transaction"
    )
    replaced = " in place of what was there" if spec.destination.mode is Mode.REPLACE else ""
    return f"Every row of the read set lands exactly once{replaced}. {seen}."
