"""Documents from text: parsed, checked, all problems at once with file:line:column, and normalized to plain JSON."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from domain.errors import InvalidInputError, Problem, SpecError
from entrypoints.documents.connection_models import OPTIONS, ConnectionDocument
from entrypoints.documents.later import found_later, without
from entrypoints.documents.limits import DocumentLimits
from entrypoints.documents.models import PipelineDocument
from entrypoints.documents.strict import known_keys
from entrypoints.documents.yaml_text import LIMITS, ParsedText, parse_json, parse_text, substitute

_VARIABLES_ALLOWED = re.compile(
    r"(source|destination)\.(connection|table|path)|source\.(cursor\.column|key\.[0-9]+|parameters\.[a-z0-9_]+)"
    r"|options\.(host|port|database|user|path|root|ssl_ca_cert)"
)
_MODELS: dict[str, type[BaseModel]] = {"pipeline": PipelineDocument, "connection": ConnectionDocument}


@dataclass(frozen=True)
class CheckedDocument:
    """A document without problems: its kind, name, and normalized body."""

    kind: str
    name: str
    body: Mapping[str, Any]
    filename: str


def read_file(path: Path, variables: Mapping[str, Any], limits: DocumentLimits = LIMITS) -> CheckedDocument:
    """Read a document from a file.

    Raises:
        SpecError: with every problem.
        InvalidInputError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            content = file.read(limits.document_bytes + 1)
        if len(content) > limits.document_bytes:
            raise SpecError([Problem(str(path), "spec.too_large", limits.too_large())])
        text = content.decode("utf-8")
    except OSError as error:
        raise InvalidInputError(f"{path} cannot be read: {error.strerror}.", code="file.unreadable") from error
    except UnicodeDecodeError as error:
        raise SpecError([Problem(str(path), "spec.yaml", "The document is not UTF-8.")]) from error
    return read_text(text, str(path), variables, is_json=path.suffix == ".json", limits=limits)


def read_text(
    text: str, filename: str, variables: Mapping[str, Any], *, is_json: bool = False, limits: DocumentLimits = LIMITS
) -> CheckedDocument:
    """Read a document from text.

    Raises:
        SpecError: with every problem.
    """
    return read_parsed((parse_json if is_json else parse_text)(text, filename, limits), variables, limits)


def read_parsed(parsed: ParsedText, variables: Mapping[str, Any], limits: DocumentLimits = LIMITS) -> CheckedDocument:
    """Read a document from the values of a text.

    Raises:
        SpecError: with every problem.
    """
    if not isinstance(parsed.value, dict):
        raise SpecError([Problem(parsed.place(()), "spec.yaml", "A document is a mapping of keys to values.")])
    for path, code, sentence in limits.exceeded(parsed.value):
        raise SpecError([Problem(parsed.place(path), code, f"{'.'.join(map(str, path))}: {sentence}")])
    substitute(parsed, variables, _VARIABLES_ALLOWED)
    later = list(found_later(parsed.value))
    for path, name in later:
        parsed.add(path, "spec.unsupported", f"{name} is not supported yet; a later version brings it")
    kinds = [kind for kind in _MODELS if kind in parsed.value]
    if len(kinds) == 1:
        checkable = without(parsed.value, {path for path, _ in later})
        body = _check(parsed, _MODELS[kinds[0]], checkable)
        if kinds[0] == "connection":
            body = _check_options(parsed, body)
        if body is not None and not parsed.problems:
            return CheckedDocument(kinds[0], body[kinds[0]], body, parsed.filename)
    elif not parsed.problems:
        parsed.add((), "spec.kind", "a document has exactly one kind key: connection or pipeline")
    raise SpecError(parsed.problems)


def json_schema(kind: str) -> str:
    """Return the JSON Schema of a kind of document, for editors."""
    return json.dumps(_MODELS[kind].model_json_schema(), indent=2) + "\n"


def _check_options(parsed: ParsedText, body: dict[str, Any] | None) -> dict[str, Any] | None:
    """Check the options with the model of their kind, also when the rest has problems."""
    kind = parsed.value.get("kind")
    model = OPTIONS.get(kind) if isinstance(kind, str) else None
    if model is None:
        return body
    options = _check(parsed, model, parsed.value.get("options") or {}, ("options",))
    return {**body, "options": options} if body is not None else None


def _check(
    parsed: ParsedText, model: type[BaseModel], value: Any, above: tuple[str | int, ...] = ()
) -> dict[str, Any] | None:
    try:
        checked = model.model_validate(value)
    except ValidationError as error:
        for item in error.errors(include_input=False, include_url=False, include_context=True):
            _note(parsed, item, above, model)
        return None
    return checked.model_dump(mode="json", exclude_none=True, by_alias=True)


def _note(parsed: ParsedText, item: Any, above: tuple[str | int, ...], model: type[BaseModel]) -> None:
    path = above + _document_path(parsed.value, above, item["loc"])
    message = item["msg"].removeprefix("Value error, ")
    match item["type"]:
        case "extra_forbidden":
            known = known_keys(model, item["loc"][:-1])
            code, message = "spec.unknown_field", "is not a known key" + (f"; known are {known}" if known else "")
        case "missing":
            code, message = "spec.missing", "is required"
        case "value_error":
            code = getattr(item["ctx"]["error"], "code", "spec.value")
        case _:
            code = "spec.value"
    parsed.add(path, code, message[:1].lower() + message[1:])


def _document_path(value: Any, above: tuple[str | int, ...], location: tuple[str | int, ...]) -> tuple[str | int, ...]:
    """Keep of pydantic's location what is a place in the document; the rest names branches of unions."""
    node = value
    for part in above:
        node = node.get(part) if isinstance(node, dict) and isinstance(part, str) else None
    path: list[str | int] = []
    for index, part in enumerate(location):
        is_last = index == len(location) - 1
        if isinstance(node, dict) and isinstance(part, str) and (part in node or (is_last and "[" not in part)):
            path.append(part)
            node = node.get(part)
        elif isinstance(node, list) and isinstance(part, int) and part < len(node):
            path.append(part)
            node = node[part]
    return tuple(path)
