"""The form in which a child answers: JSON and raw bytes, read without pickle, since a child may have been broken into.

What can be told: None, booleans, numbers, text, bytes, lists, tuples, sets, dictionaries, decimals, enums and frozen
dataclasses of ours, and our errors. Reading makes nothing else, and imports nothing.
"""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from decimal import Decimal
from enum import Enum
from typing import Any

from domain import errors

_OURS = ("domain.", "infrastructure.")


class UnreadableAnswerError(Exception):
    """An answer that no child of ours gives."""


def written(value: Any) -> list[bytes]:
    """Write an answer: a JSON text, then the bytes that it refers to.

    Raises:
        TypeError: there is something in it that cannot be told.
    """
    chunks: list[bytes] = []
    text = json.dumps(_plain(value, chunks)).encode("ascii")
    return [text, *chunks]


def read(parts: Sequence[bytes | bytearray]) -> Any:
    """Read an answer.

    Raises:
        UnreadableAnswerError: it is not in this form.
    """
    try:
        return _value(json.loads(parts[0]), parts[1:])
    except Exception as error:
        # Whatever it is, nothing of the answer may be used.
        raise UnreadableAnswerError(type(error).__name__) from error


def error_as_value(error: errors.PlatformError) -> dict[str, Any]:
    """All that an error of ours says, under the nearest class of `domain.errors`."""
    kind = next(kind for kind in type(error).__mro__ if vars(errors).get(kind.__name__) is kind)
    return {
        "kind": kind.__name__,
        "message": error.message,
        "code": error.code,
        "problems": error.problems,
        "more": {name: value for name, value in vars(error).items() if name not in ("message", "code", "problems")},
    }


def error_of_value(value: Mapping[str, Any]) -> errors.PlatformError:
    """The error that was told.

    Raises:
        UnreadableAnswerError: there is no such error.
    """
    kind = vars(errors).get(value["kind"])
    if not (isinstance(kind, type) and issubclass(kind, errors.PlatformError)):
        raise UnreadableAnswerError("no error of ours")
    error = kind.__new__(kind)
    code, problems = str(value["code"]), value["problems"]
    if not all(isinstance(problem, errors.Problem) for problem in problems):
        raise UnreadableAnswerError("no problems of ours")
    errors.PlatformError.__init__(error, str(value["message"]), code=code, problems=problems)
    for name in ("fence", "first_errors"):
        if name in value["more"]:
            setattr(error, name, value["more"][name])
    return error


def _plain(value: Any, chunks: list[bytes]) -> Any:
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, bytes):
        chunks.append(value)
        return {"bytes": len(chunks) - 1}
    if isinstance(value, Enum):
        return {"enum": [*_name(type(value)), value.name]}
    if is_dataclass(value) and not isinstance(value, type):
        items = {field.name: _plain(getattr(value, field.name), chunks) for field in fields(value) if field.init}
        return {"object": [*_name(type(value)), items]}
    if isinstance(value, Decimal):
        return {"decimal": str(value)}
    if isinstance(value, Mapping):
        return {"dict": [[_plain(key, chunks), _plain(item, chunks)] for key, item in value.items()]}
    for kind, name in ((list, "list"), (tuple, "tuple"), (frozenset, "set"), (set, "set")):
        if isinstance(value, kind):
            return {name: [_plain(item, chunks) for item in value]}
    raise TypeError(f"a {type(value).__name__} cannot be told by a child")


def _name(kind: type) -> tuple[str, str]:
    try:
        is_known = _kind(kind.__module__, kind.__name__) is kind
    except UnreadableAnswerError:
        is_known = False
    if not is_known:
        raise TypeError(f"a {kind.__name__} cannot be told by a child")
    return kind.__module__, kind.__name__


def _kind(module: str, name: str) -> type:
    """A frozen dataclass or enum of ours, of a module that is loaded here for reasons of this process."""
    kind = vars(sys.modules[module]).get(name) if module.startswith(_OURS) and module in sys.modules else None
    if not isinstance(kind, type) or kind.__module__ != module:
        raise UnreadableAnswerError("no class of ours")
    is_frozen = is_dataclass(kind) and kind.__dataclass_params__.frozen  # type: ignore[attr-defined]
    if not (is_frozen or issubclass(kind, Enum)):
        raise UnreadableAnswerError("no class that may be told")
    return kind


def _value(plain: Any, chunks: Sequence[bytes | bytearray]) -> Any:
    if not isinstance(plain, dict):
        if isinstance(plain, list):
            raise UnreadableAnswerError("a list without a kind")
        return plain
    [(kind, inner)] = plain.items()
    match kind:
        case "bytes":
            return bytes(chunks[inner])
        case "decimal":
            return Decimal(inner)
        case "enum":
            module, name, member = inner
            return _kind(module, name)[member]  # type: ignore[index]
        case "object":
            module, name, items = inner
            return _kind(module, name)(**{field: _value(item, chunks) for field, item in items.items()})
        case "dict":
            return {_value(key, chunks): _value(item, chunks) for key, item in inner}
        case "list":
            return list(_values(inner, chunks))
        case "tuple":
            return tuple(_values(inner, chunks))
        case "set":
            return frozenset(_values(inner, chunks))
    raise UnreadableAnswerError("no kind of value")


def _values(items: list[Any], chunks: Sequence[bytes | bytearray]) -> Iterator[Any]:
    return (_value(item, chunks) for item in items)
