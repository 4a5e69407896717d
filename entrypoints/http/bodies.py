"""The bodies of requests, strict and closed, and of problems; OpenAPI is made from them."""

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


class ReplayBody(Body):
    """Which refused rows to replay: a pipeline's, or those of one of its runs."""

    pipeline: Annotated[str, StringConstraints(min_length=1, max_length=100)]
    run: Annotated[str, StringConstraints(pattern=r"^[0-9a-f-]{36}$")] | None = None


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
    """OpenAPI's description of a body that a route reads itself; where nothing is required of it, none is an empty
    object.
    """
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
