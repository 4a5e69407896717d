"""The bodies of requests and answers, strict and closed; OpenAPI is made from them."""

import json
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from domain.errors import Problem, SpecError
from entrypoints.documents.models import Name, Scalar


class Body(BaseModel):
    """Strict, closed, and silent about values."""

    model_config = ConfigDict(strict=True, extra="forbid", hide_input_in_errors=True, allow_inf_nan=False)


class TriggerBody(Body):
    """What to ask of a run."""

    parameters: dict[Name, Scalar] = Field(default={}, description="Parameters of the source query.")
    limit: Annotated[int, Field(ge=1, le=2**62)] | None = Field(None, description="Read at most so many rows.")
    full_refresh: bool = Field(
        False, description="Read everything again and replace the table in one step; needs the right to reset."
    )
    abandon: bool = Field(
        False, description="Forget what the lane left unfinished instead of completing it; needs the right to reset."
    )


class RetryBody(Body):
    """How to try again."""

    abandon: bool = Field(
        False, description="Forget what the run left unfinished instead of completing it; needs the right to reset."
    )


class PreviewBody(Body):
    """What to preview."""

    limit: Annotated[int, Field(ge=1, le=10_000)] | None = Field(10, description="Rows to read; null reads all.")
    rows: bool = Field(True, description="Answer rows; false only counts.")


class ResetBody(Body):
    """Where to go on from."""

    to: Annotated[str, Field(max_length=100)] | None = Field(None, description="The watermark; null is the beginning.")


class PlanBody(Body):
    """Documents to compare with what is stored."""

    documents: Annotated[list[dict[str, Any]], Field(max_length=1000)]
    prune: bool = False


class Run(BaseModel):
    """A run: its state and, once it is at its end, its report or error."""

    id: str
    pipeline: str
    revision: int
    lane: str
    state: str
    attempt: int
    reason: str | None
    cancel_requested: bool
    requested_by: str
    request: dict[str, Any]
    retries: int
    cause: str | None
    trace: str | None
    created_at: str | None
    started_at: str | None
    finished_at: str | None
    report: Annotated[
        dict[str, Any] | None,
        Field(
            description="What it did: `counts` over source rows; after a merge, `merged` says how many rows of the table were "
            "`inserted`, `updated` and `deleted`; `streams` has both for each stream."
        ),
    ]
    error: dict[str, Any] | None


class Worker(BaseModel):
    """A process of the installation."""

    id: str
    roles: list[str]
    host: str
    version: str
    concurrency: int
    running: int
    state: str
    started_at: str | None


class WorkerList(BaseModel):
    """The processes that live, and the rings that wait."""

    items: list[Worker]
    queue_depth: int | None


class Document(BaseModel):
    """A stored document."""

    name: str
    revision: int
    updated_by: str
    updated_at: str
    document: dict[str, Any]


class DocumentPage(BaseModel):
    """Documents, and where the next page begins."""

    items: list[Document]
    next_cursor: str | None


class RunPage(BaseModel):
    """Runs, newest first, and where the next page begins."""

    items: list[Run]
    next_cursor: str | None


class ReplayBody(Body):
    """Which refused rows to replay: a pipeline's, or those of one of its runs."""

    pipeline: Annotated[str, StringConstraints(min_length=1, max_length=100)]
    run: Annotated[str, StringConstraints(pattern=r"^[0-9a-f-]{36}$")] | None = None


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


class ProblemItem(BaseModel):
    """One thing that is wrong."""

    loc: str
    code: str
    msg: str


class ProblemBody(BaseModel):
    """RFC 9457 with a stable code."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    request_id: str | None
    errors: list[ProblemItem]


B = TypeVar("B", bound=Body)


def checked(model: type[B], value: dict[str, Any]) -> B:
    """Check a body.

    Raises:
        SpecError: with every problem, none showing a value.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        found = []
        for item in error.errors(include_input=False, include_url=False, include_context=False):
            path = ".".join(str(part) for part in item["loc"])
            is_unknown = item["type"] == "extra_forbidden"
            code = "spec.unknown_field" if is_unknown else "spec.value"
            found.append(
                Problem(f"body.{path}", code, f"{path}: {'is not a known key' if is_unknown else item['msg']}")
            )
        raise SpecError(found) from error


def as_text(value: Any) -> str:
    """Write a value as JSON, to measure it."""
    return json.dumps(value, ensure_ascii=False)


_SCHEMAS = "#/components/schemas/{model}"


def request_schema(model: type[BaseModel]) -> dict[str, Any]:
    """OpenAPI's description of a body that a route reads itself; where nothing is required of it, none is an empty object."""
    is_required = any(field.is_required() for field in model.model_fields.values())
    return {"requestBody": {"required": is_required, "content": {"application/json": {"schema": _named(model)}}}}


def document_schema(model: type[BaseModel]) -> dict[str, Any]:
    """OpenAPI's description of a document, in YAML or JSON."""
    content = {kind: {"schema": _named(model)} for kind in ("application/yaml", "application/json")}
    return {"requestBody": {"required": True, "content": content}}


def described(*models: type[BaseModel]) -> dict[str, Any]:
    """The schemas of models that no route has as a parameter, and of what they consist of, by name."""
    found: dict[str, Any] = {}
    for model in models:
        schema = model.model_json_schema(ref_template=_SCHEMAS)
        found |= schema.pop("$defs", {})
        found[model.__name__] = schema
    return found


def _named(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": _SCHEMAS.format(model=model.__name__)}
