"""Refused rows, page by page."""

import json
import re
from typing import Any

from pydantic import BaseModel

from application.answers import AnswerLimits
from application.pipelines import quarantine
from domain.errors import InvalidInputError
from domain.loads import quarantine as refusals
from domain.loads.checkpoint import Position
from entrypoints.answers.cursors import cursor_of, place_of
from entrypoints.answers.sizes import cells, first_of, fitted

_REFUSED = re.compile(r"[0-9a-f-]{36}~[A-Za-z0-9_-]{1,20}~[0-9]{1,18}~[0-9]{1,18}")


class RefusedRow(BaseModel):
    """A refused row: its place, the reason, the row as it was read, and what became of it."""

    read_set: str
    stream: str
    seq: int
    ordinal: int
    run_id: str
    kind: str
    rule: str | None
    reason: str
    record: dict[str, Any]
    state: str
    settled_by: str | None
    refused_at: str


class RefusedPage(BaseModel):
    """Refused rows, oldest first, and where the next page begins."""

    items: list[RefusedRow]
    next_cursor: str | None


def refused_place_of(organization: str, pipeline: str, cursor: str | None) -> Position | None:
    """The place that a cursor over the refused rows of a pipeline names.

    Raises:
        InvalidInputError: it is none of ours (`request.cursor`).
    """
    place = place_of(organization, f"refused rows of {pipeline}", cursor, parts=4)
    if place is not None and not _REFUSED.fullmatch("~".join(place)):
        raise InvalidInputError("The cursor is none that a page of this list has given.", code="request.cursor")
    return place


def refused_page_body(
    organization: str, pipeline: str, page: quarantine.RefusedPage, limits: AnswerLimits
) -> dict[str, Any]:
    """Refused rows, as many as there is room for, and the cursor of the next page."""
    items = first_of(page.rows, lambda row: refused_body(row, limits), limits.answer_bytes)
    following = page.next_place if len(items) == len(page.rows) else page.rows[len(items) - 1].place
    return {"items": items, "next_cursor": cursor_of(organization, f"refused rows of {pipeline}", following)}


def refused_body(row: refusals.RefusedRow, limits: AnswerLimits) -> dict[str, Any]:
    """A refused row, with the row as it was read; of long values their beginning."""
    read_set, stream, seq, ordinal = row.place
    return {
        "read_set": read_set,
        "stream": stream,
        "seq": int(seq),
        "ordinal": int(ordinal),
        "run_id": row.run_id,
        "kind": row.kind,
        "rule": row.rule,
        "reason": fitted(row.reason, limits.cell_bytes),
        "record": cells(json.loads(row.record), limits.cell_bytes),
        "state": row.state.value,
        "settled_by": row.settled_by,
        "refused_at": row.refused_at.isoformat(),
    }
