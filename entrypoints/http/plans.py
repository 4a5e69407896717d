"""Plans over HTTP: what applying documents would change."""

import json
from typing import Any

from fastapi import APIRouter, Request

from application.catalog.documents import PutDocument
from domain.errors import Problem, SpecError
from entrypoints.documents.reading import read_text
from entrypoints.http import bodies
from entrypoints.http.dependencies import Caller, Cases, json_body

router = APIRouter(prefix="/v1/plans", tags=["plans"])


@router.post("", openapi_extra=bodies.request_schema(bodies.PlanBody))
async def plan(request: Request, cases: Cases, caller: Caller) -> dict[str, Any]:
    """Say what applying a set of documents would change; nothing is stored, and nothing opened that is not stored."""
    wanted = bodies.checked(bodies.PlanBody, await json_body(request))
    changes = await cases.planner.plan(caller, _documents(wanted.documents), prune=wanted.prune)
    return {
        "changes": [
            {
                "action": change.action,
                "kind": change.kind,
                "name": change.name,
                "fields": list(change.fields),
                "notes": list(change.notes),
                "columns": [vars(column) for column in change.columns],
            }
            for change in changes
        ]
    }


def _documents(given: list[dict[str, Any]]) -> list[PutDocument]:
    """Check all documents, reporting the problems of all of them together."""
    documents: list[PutDocument] = []
    problems: list[Problem] = []
    for index, body in enumerate(given):
        try:
            found = read_text(json.dumps(body), f"documents.{index}", {}, is_json=True)
        except SpecError as error:
            problems += error.problems
        else:
            documents.append(PutDocument(found.kind, found.name, found.body))
    if problems:
        raise SpecError(problems)
    return documents
