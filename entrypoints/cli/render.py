"""Results on stdout, as JSON or for people; progress on stderr, as one live line or plain ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from domain.plain_text import in_one_line
from entrypoints.cli.output import is_live, say, say_json, say_over
from entrypoints.client.protocol import Listener
from entrypoints.composition.clock import CLOCK

if TYPE_CHECKING:
    from domain.ports.engine import Progress

_STAGES = {"read": "waiting for the source", "judge": "judging", "write": "committing"}

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def print_json(value: Any) -> None:
    """Print JSON for programs."""
    say_json(value)


def print_table(headers: Sequence[str], rows: Sequence[Sequence[Any]], *, title: str | None = None) -> None:
    """Print aligned columns; numbers to the right."""
    headers = list(map(in_one_line, headers))
    texts = [[_cell(value) for value in row] for row in rows]
    widths = [max([len(header), *(len(row[i]) for row in texts)]) for i, header in enumerate(headers)]
    numeric = [
        bool(rows) and all(isinstance(row[i], int | float) or row[i] is None for row in rows)
        for i in range(len(headers))
    ]
    if title:
        say()
        say(title)
    for row in [headers, ["─" * width for width in widths], *texts]:
        cells = [
            cell.rjust(width) if is_number else cell.ljust(width)
            for cell, width, is_number in zip(row, widths, numeric, strict=True)
        ]
        say("  ".join(cells).rstrip())


def print_report(run: Mapping[str, Any]) -> None:
    """Print what a finished run did."""
    report = run.get("report") or {}
    counts = report.get("counts") or {}
    rate = report.get("rows_per_second")
    say(f"run {run['id']}: {run['state']}")
    if counts:
        print_table(
            ["read", "used", "filtered", "quarantined", "failed", "seconds", "rows/s"],
            [
                [
                    *(counts[name] for name in ("read", "used", "filtered", "quarantined", "failed")),
                    report.get("seconds"),
                    rate,
                ]
            ],
        )
    for part in report.get("read_sets") or []:
        whose = "left by an earlier run" if part["adopted"] else "of this run"
        say(f"  read set {whose}: {part['counts']['read']:,} read, {part['counts']['used']:,} used")
    if merged := report.get("merged"):
        say("merged: " + ", ".join(f"{count:,} {what}" for what, count in merged.items()))
    for note in report.get("columns_left_out") or []:
        say(f"columns: {note}")
    _print_quality(report)
    for error in report.get("first_errors") or []:
        shape = f" ({error['shape']})" if error.get("shape") else ""
        place = f", {error['place']}" if error.get("place") else ""
        say(f"  {error['kind']}: {error['message']}{shape}{place}")
    if report.get("note"):
        say(f"note: {report['note']}")
    for warning in report.get("warnings") or []:
        say(f"warning: {warning}")
    if report.get("watermark"):
        say(f"watermark: {report['watermark']}")
    print_cursor(report)


def print_times(run: Mapping[str, Any]) -> None:
    """Print where the seconds of a run went, and its trace."""
    if (spent := (run.get("report") or {}).get("spent")) is not None:
        stages = ", ".join(f"{spent[stage]:g} s {what}" for stage, what in _STAGES.items())
        say(f"seconds: {_waited(run)}{stages} (stages and streams overlap)")
    if run.get("trace"):
        say(f"trace: {run['trace'].split('-')[1]}")


def _waited(run: Mapping[str, Any]) -> str:
    """How long a run waited for a worker."""
    if not run.get("created_at") or not run.get("started_at"):
        return ""
    waited = datetime.fromisoformat(run["started_at"]) - datetime.fromisoformat(run["created_at"])
    return f"{max(0.0, waited.total_seconds()):.3f} s waiting to begin, "


def _print_quality(report: Mapping[str, Any]) -> None:
    if rules := report.get("rules"):
        print_table(
            ["rule", "scope", "verdict", "violations", "value", "threshold"],
            [
                [r["rule"], r["scope"], r["verdict"], r["violations"], _rounded(r["value"]), r["threshold"]]
                for r in rules
            ],
            title="rules",
        )
    if profiles := report.get("profiles"):
        print_table(
            ["column", "distinct", "nulls", "min", "median", "mean", "max", "most frequent"],
            [_profile(name, found) for name, found in profiles.items()],
            title="distributions",
        )


def print_cursor(body: Mapping[str, Any]) -> None:
    """Print what is to be known of where a read by a cursor ended."""
    if body.get("complete_as_of"):
        say(f"complete as of: {body['complete_as_of']}")
    for sentences in (body.get("cursor") or {}).values():
        for sentence in sentences:
            say(f"  {sentence}")


def _profile(name: str, found: Mapping[str, Any]) -> list[Any]:
    median = (found.get("quantiles") or {}).get("p50")
    top = ", ".join(f"{value} ({count:,})" for value, count in list(found["top"].items())[:3])
    return [name, found["distinct"], found["nulls"], found.get("min"), median, found.get("mean"), found.get("max"), top]


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.6g}" if value != int(value) else f"{value:,.0f}"
    return in_one_line(str(value))


def progress_line(name: str) -> Callable[[Progress], None]:
    """Return a callback that shows batches: one live line on a terminal, else a line every two seconds."""
    started = CLOCK.monotonic()
    state = {"read": 0, "told": started}

    def show(progress: Progress) -> None:
        now = CLOCK.monotonic()
        state["read"] += progress.rows_read
        rate = round(state["read"] / (now - started)) if now > started else 0
        text = f"{name}: batch {progress.seq}, {state['read']:,} rows read, {rate:,} rows/s"
        if is_live():
            say_over(text)
        elif now - state["told"] >= 2:
            say(text, to_stderr=True, flush=True)
            state["told"] = now

    return show


def listening(name: str) -> Listener:
    """Who shows what is heard of a run that is waited for."""

    def note(sentence: str) -> None:
        end_progress()
        say(sentence, to_stderr=True)

    return Listener(lambda: progress_line(name), note)


def end_progress() -> None:
    """Leave the live line."""
    if is_live():
        say_over()
