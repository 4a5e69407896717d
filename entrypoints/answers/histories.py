"""A run's history and its stored events as lines: the first page has the newest, and in each the oldest come first."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import islice
from typing import Any

from application.answers import AnswerLimits
from application.runs.history import LogPlace
from domain.ports.records.events import StoredEvent
from domain.runs.run import Transition
from entrypoints.answers.cursors import cursor_of, numbers_of
from entrypoints.answers.sizes import first_of

_UNTOLD = ("organization", "subject", "run_id", "trace", "correlation_id")
_Line = tuple[datetime, dict[str, Any], LogPlace]


def transition_place_of(organization: str, run_id: str, cursor: str | None) -> int | None:
    """Before which transition a page of a run's history ends.

    Raises:
        InvalidInputError: it is no cursor of that history (`request.cursor`).
    """
    place = numbers_of(organization, _history(run_id), cursor, parts=1)
    return place[0] if place else None


def log_place_of(organization: str, run_id: str, cursor: str | None) -> LogPlace | None:
    """Before which lines a page of a run's logs ends.

    Raises:
        InvalidInputError: it is no cursor of those logs (`request.cursor`).
    """
    place = numbers_of(organization, _logs(run_id), cursor, parts=2)
    return LogPlace(*place) if place else None


def transitions_body(
    organization: str, run_id: str, transitions: Sequence[Transition], limit: int, limits: AnswerLimits
) -> dict[str, Any]:
    """A page of a run's history, of which one more was read than is shown."""
    newest = list(reversed(transitions))
    shown = first_of(newest[:limit], _transition_body, limits.answer_bytes)
    place = (str(newest[len(shown) - 1].place),) if len(shown) < len(newest) else None
    return {"items": shown[::-1], "next_cursor": cursor_of(organization, _history(run_id), place)}


def logs_body(
    organization: str,
    run_id: str,
    found: tuple[Sequence[Transition], Sequence[StoredEvent]],
    limit: int,
    limits: AnswerLimits,
) -> dict[str, Any]:
    """A page of a run's history together with its stored events, of each of which one more was read than is shown."""
    newest = list(islice(_newest_first(*found), limit + 1))
    shown = first_of(newest[:limit], lambda line: line[1], limits.answer_bytes)
    at = newest[len(shown) - 1][2] if len(shown) < len(newest) else None
    place = (str(at.transition), str(at.event)) if at is not None else None
    lines = [(moment, body) for (moment, _, _), body in zip(newest, shown, strict=False)]
    lines.reverse()  # The order of those of one moment.
    return {
        "items": [body for _, body in sorted(lines, key=lambda line: line[0])],
        "next_cursor": cursor_of(organization, _logs(run_id), place),
    }


def _newest_first(transitions: Sequence[Transition], events: Sequence[StoredEvent]) -> Iterator[_Line]:
    """Lines, each with the place at which those before it begin."""
    lines, told = list(transitions), list(events)
    place = LogPlace(lines[-1].place + 1 if lines else 0, told[-1].id + 1 if told else 0)
    while lines or told:
        if not told or (lines and lines[-1].at > told[-1].created_at):
            line = lines.pop()
            place = replace(place, transition=line.place)
            body = {"at": line.at.isoformat(), "event": f"run.{line.after}", **_transition_body(line)}
            yield line.at, body, place
        else:
            event = told.pop()
            place = replace(place, event=event.id)
            yield event.created_at, _event_body(event), place


def _event_body(event: StoredEvent) -> dict[str, Any]:
    said = {name: value for name, value in event.payload.items() if name not in _UNTOLD and value is not None}
    return {"at": event.created_at.isoformat(), "event": event.event_type, **said}


def _transition_body(transition: Transition) -> dict[str, Any]:
    return {
        "from": transition.before,
        "to": transition.after,
        "fence": transition.fence,
        "actor": transition.actor,
        "reason": transition.reason,
        "at": transition.at.isoformat(),
    }


def _history(run_id: str) -> str:
    return f"history of {run_id}"


def _logs(run_id: str) -> str:
    return f"logs of {run_id}"
