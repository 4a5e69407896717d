"""What routes ask for: the use cases, the caller, a document from the body."""

from typing import Annotated, Any

from fastapi import Depends, Request
from starlette.exceptions import HTTPException

from application.catalog.documents import PutDocument
from domain.errors import Problem, SpecError, UnauthenticatedError
from domain.identity.principal import Principal
from entrypoints.documents.reading import read_text
from entrypoints.use_cases import UseCases

_JSON = "application/json"
_YAML = ("application/yaml", "application/x-yaml", "text/yaml")


async def use_cases(request: Request) -> UseCases:
    """The use cases of this application (a plain function would cost a thread hop)."""
    found: UseCases = request.app.state.use_cases
    return found


async def principal(request: Request) -> Principal:
    """Who is calling, from exactly one `Authorization: Bearer` header."""
    given = request.headers.getlist("authorization")
    scheme, _, key = given[0].partition(" ") if len(given) == 1 else ("", "", "")
    if scheme.lower() != "bearer":
        raise UnauthenticatedError("Send a valid key: Authorization: Bearer <key>.")
    found: UseCases = request.app.state.use_cases
    request.state.caller = await found.authenticator.principal_of(key)
    return request.state.caller  # type: ignore[no-any-return]


async def text_body(request: Request) -> tuple[str, bool]:
    """The body as text and whether it is JSON; 415 and 400 for what is neither YAML nor JSON in plain UTF-8."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if request.headers.get("content-encoding", "identity") != "identity":
        raise HTTPException(415, "Compressed bodies are not taken.")
    if kind != _JSON and kind not in _YAML:
        raise HTTPException(415, "Send application/yaml or application/json.")
    content = await request.body()
    try:
        return content.decode("utf-8"), kind == _JSON
    except UnicodeDecodeError as error:
        raise HTTPException(400, "The body is not UTF-8.") from error


async def json_body(request: Request) -> dict[str, Any]:
    """A JSON object, parsed as strictly as a document; an empty body is an empty object.

    Raises:
        SpecError: it is not JSON, holds a key twice, or is not an object.
    """
    from entrypoints.documents.yaml_text import parse_json

    if not (await request.body()):
        return {}
    text, is_json = await text_body(request)
    if not is_json:
        raise HTTPException(415, "Send application/json.")
    parsed = parse_json(text, "body")
    if not isinstance(parsed.value, dict):
        parsed.add((), "spec.yaml", "the body is a JSON object")
    if parsed.problems:
        raise SpecError(parsed.problems)
    value: dict[str, Any] = parsed.value
    return value


async def document(request: Request, kind: str, name: str) -> PutDocument:
    """The document of a PUT, whose kind and name agree with the path.

    Raises:
        SpecError: with every problem.
    """
    text, is_json = await text_body(request)
    found = read_text(text, "body", {}, is_json=is_json)
    if found.kind != kind or found.name != name:
        raise SpecError([Problem("body", "spec.name", f"The document is not the {kind} that the path names.")])
    return PutDocument(found.kind, found.name, found.body)


Cases = Annotated[UseCases, Depends(use_cases)]
Caller = Annotated[Principal, Depends(principal)]
"""Every /v1 route asks for the caller; whether they may is the use case's to say."""
