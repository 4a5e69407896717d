"""Text to plain values, each with its line and column; whatever YAML might misread is a problem instead."""

import json
import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml
from yaml.composer import Composer
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from yaml.resolver import Resolver

from domain.errors import Problem, SpecError
from entrypoints.documents.limits import DocumentLimits
from entrypoints.documents.numbers import number_of

LIMITS = DocumentLimits()

Path = tuple[str | int, ...]

_CORE_TAGS = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")
_CORE_BOOLS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_CORE_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_CORE_INT = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_CORE_FLOAT = re.compile(r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+)([eE][-+]?[0-9]+)?")
_SURROGATE = re.compile(r"[\ud800-\udfff]")


@dataclass
class ParsedText:
    """Plain values with the places they came from (1-based line and column, by path)."""

    filename: str
    value: Any = None
    places: dict[Path, tuple[int, int]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def place(self, path: Path) -> str:
        """Return `file:line:column` of the nearest known ancestor of a path, and the path itself."""
        for length in range(len(path), -1, -1):
            if path[:length] in self.places:
                line, column = self.places[path[:length]]
                return f"{self.filename}:{line}:{column}"
        return self.filename

    def add(self, path: Path, code: str, message: str) -> None:
        """Note a problem at a path."""
        where = ".".join(str(part) for part in path)
        text = f"{where}: {message}" if where else message
        self.problems.append(Problem(self.place(path), code, text))


def parse_text(text: str, filename: str, limits: DocumentLimits = LIMITS) -> ParsedText:
    """Read one YAML or JSON document.

    Raises:
        SpecError: it cannot be read at all (`spec.yaml`); smaller problems are in the result.
    """
    _check_text(text, filename, limits)
    parsed = ParsedText(filename)
    try:
        node = _Composer(text, filename, limits).get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{filename}:{mark.line + 1}:{mark.column + 1}" if mark else filename
        message = f"This is not YAML: {error.problem or error.context}."
        raise SpecError([Problem(place, "spec.yaml", message)]) from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise SpecError([Problem(filename, "spec.yaml", "This is not YAML.")]) from error
    if node is None:
        raise SpecError([Problem(filename, "spec.yaml", "The document is empty.")])
    parsed.value = _value(node, (), parsed)
    return parsed


def parse_json(text: str, filename: str, limits: DocumentLimits = LIMITS) -> ParsedText:
    """Read one JSON document; problems name the path, as JSON has no lines worth telling.

    Raises:
        SpecError: it cannot be read at all (`spec.yaml`).
    """
    check_json_shape(text, filename, limits)
    parsed = ParsedText(filename)

    def mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            counts = Counter(name for name, _ in pairs)
            for name in sorted(name for name, count in counts.items() if count > 1):
                parsed.add((name,), "spec.duplicate_key", "is written twice")
        return found

    def constant(name: str) -> None:
        parsed.add((), "spec.value", f"{name} is not a number")

    try:
        parsed.value = json.loads(text, object_pairs_hook=mapping, parse_constant=constant, parse_float=number_of)
    except json.JSONDecodeError as error:
        place = f"{filename}:{error.lineno}:{error.colno}"
        raise SpecError([Problem(place, "spec.yaml", f"This is not JSON: {error.msg}.")]) from error
    except (RecursionError, ValueError) as error:
        raise SpecError([Problem(filename, "spec.yaml", "This is not JSON.")]) from error
    _check_strings(parsed.value, (), parsed)
    return parsed


def _check_strings(value: Any, path: Path, parsed: ParsedText) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            _check_strings(key, path, parsed)
            _check_strings(item, (*path, key), parsed)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _check_strings(item, (*path, index), parsed)
    elif isinstance(value, str) and ("\x00" in value or _SURROGATE.search(value)):
        parsed.add(path, "spec.yaml", "holds NUL or half a surrogate pair")
    elif isinstance(value, float) and not math.isfinite(value):
        parsed.add(path, "spec.value", "is too large a number")


class _PurePython(yaml.reader.Reader, yaml.scanner.Scanner, yaml.parser.Parser):
    """What gives the events of a text where there is no libyaml, several times slower."""

    def __init__(self, stream: str) -> None:
        yaml.reader.Reader.__init__(self, stream)
        yaml.scanner.Scanner.__init__(self)
        yaml.parser.Parser.__init__(self)


_Events: Any = vars(yaml.cyaml)["CParser"] if yaml.__with_libyaml__ else _PurePython


class _Composer(Composer, _Events, Resolver):  # type: ignore[misc]
    """Aliases make small text large, so there are none; and there are so many nodes, so deep, and no more."""

    def __init__(self, text: str, filename: str, limits: DocumentLimits) -> None:
        _Events.__init__(self, text)
        Composer.__init__(self)
        Resolver.__init__(self)
        self._filename, self._limits = filename, limits
        self._count = self._depth = 0

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        event = self.peek_event()
        if self.check_event(yaml.AliasEvent):
            raise yaml.composer.ComposerError(None, None, "aliases are not allowed", event.start_mark)
        self._count += 1
        self._depth += 1
        place = f"{self._filename}:{event.start_mark.line + 1}:{event.start_mark.column + 1}"
        if self._count > self._limits.document_nodes:
            raise SpecError([Problem(place, "spec.too_many_nodes", self._limits.too_many())])
        if self._depth > self._limits.document_depth and not isinstance(event, yaml.ScalarEvent):
            raise SpecError([Problem(place, "spec.yaml", self._limits.too_deep())])
        node: Node | None = super().compose_node(parent, index)
        self._depth -= 1
        return node


def _check_text(text: str, filename: str, limits: DocumentLimits) -> None:
    """Refuse what no document is, before looking at it."""
    if len(text) > limits.document_bytes or len(text.encode(errors="replace")) > limits.document_bytes:
        raise SpecError([Problem(filename, "spec.too_large", limits.too_large())])
    if "\x00" in text or _has_surrogates(text):
        raise SpecError([Problem(filename, "spec.yaml", "The document holds NUL or half a surrogate pair.")])


_JSON_PARTS = re.compile(r'"[^"\\]{0,4096}+"|[\[\]{},:"]|[^\[\]{},:"]{1,65536}+')
"""Short strings, what stands between values, where another string begins, and all else."""
_IN_JSON_STRING = re.compile(r'(?:[^"\\]{1,4096}+|\\.){1,256}+|"|\\', re.DOTALL)
"""What a string is of, and where it ends. A match has a bound, as no other thread has a turn before it ends."""


def check_json_shape(text: str, filename: str, limits: DocumentLimits) -> None:
    """Count levels, and keys and values, without making any of them.

    Raises:
        SpecError: there is more than a document may have.
    """
    _check_text(text, filename, limits)
    depth, count, at = 0, 1, 0
    while found := _JSON_PARTS.match(text, at):
        at = found.end()
        match text[found.start()]:
            case '"' if at == found.start() + 1:
                at = _behind_string(text, at)
                continue
            case "[" | "{":
                depth += 1
                count += 1
                if depth > limits.document_depth:
                    raise SpecError([Problem(filename, "spec.yaml", limits.too_deep())])
            case "]" | "}":
                depth -= 1
            case "," | ":":
                count += 1
            case _:
                continue
        if count > limits.document_nodes:
            raise SpecError([Problem(filename, "spec.too_many_nodes", limits.too_many())])


def _behind_string(text: str, at: int) -> int:
    """Where a string ends whose first quote stands before `at`; the text's end if it does not."""
    while found := _IN_JSON_STRING.match(text, at):
        at = found.end()
        if text[found.start()] == '"':
            break
    return at


def _has_surrogates(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _value(node: Node, path: Path, parsed: ParsedText) -> Any:
    parsed.places.setdefault(path, (node.start_mark.line + 1, node.start_mark.column + 1))
    if not isinstance(node, ScalarNode) and node.tag not in _CORE_TAGS:
        parsed.add(path, "spec.yaml", "tags are not allowed")
        return None
    if isinstance(node, MappingNode):
        return _mapping(node, path, parsed)
    if isinstance(node, SequenceNode):
        return [_value(item, (*path, index), parsed) for index, item in enumerate(node.value)]
    assert isinstance(node, ScalarNode)
    return _scalar(node, path, parsed)


def _mapping(node: MappingNode, path: Path, parsed: ParsedText) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key_node, value_node in node.value:
        if not isinstance(key_node, ScalarNode) or not key_node.tag.startswith("tag:yaml.org,2002:"):
            parsed.add(path, "spec.yaml", "a key must be text")
            continue
        key = key_node.value
        parsed.places[(*path, key)] = (key_node.start_mark.line + 1, key_node.start_mark.column + 1)
        if key in result:
            parsed.add((*path, key), "spec.duplicate_key", "is written twice")
            continue
        result[key] = _value(value_node, (*path, key), parsed)
    return result


def _scalar(node: ScalarNode, path: Path, parsed: ParsedText) -> Any:
    kind = node.tag.removeprefix("tag:yaml.org,2002:")
    text = node.value
    if "\x00" in text or _SURROGATE.search(text):
        parsed.add(path, "spec.yaml", "holds NUL or half a surrogate pair")
        return ""
    if node.style:  # Plain text has none, or an empty one, as the parser has it.
        if kind != "str":
            parsed.add(path, "spec.yaml", "tags are not allowed")
        return text
    match kind:
        case "str" | "timestamp" | "value":
            return text
        case "null" if text in _CORE_NULLS:
            return None
        case "bool" if text in _CORE_BOOLS:
            return _CORE_BOOLS[text]
        case "int" if _CORE_INT.fullmatch(text):
            return int(text) if len(text) < 40 else _refuse(path, parsed, "is too large a number")
        case "float" if _CORE_FLOAT.fullmatch(text):
            number = number_of(text)
            return number if math.isfinite(number) else _refuse(path, parsed, "is too large a number")
        case "bool" | "int" | "float" | "null":
            parsed.add(path, "spec.ambiguous", "is read differently by different YAML versions; write text in quotes")
            return text
        case _:
            parsed.add(path, "spec.yaml", "tags are not allowed")
            return text


def _refuse(path: Path, parsed: ParsedText, message: str) -> None:
    parsed.add(path, "spec.value", message)


def substitute(parsed: ParsedText, variables: Mapping[str, Any], allowed: re.Pattern[str]) -> None:
    """Put variables into identifiers and parameters, in place; any other `${…}` stays as it is."""
    parsed.value = _substituted(parsed.value, (), parsed, variables, allowed)


_VARIABLE = re.compile(r"\$\{var\.([a-zA-Z0-9_]*)\}")


def _substituted(
    value: Any, path: Path, parsed: ParsedText, variables: Mapping[str, Any], allowed: re.Pattern[str]
) -> Any:
    if isinstance(value, dict):
        return {key: _substituted(item, (*path, key), parsed, variables, allowed) for key, item in value.items()}
    if isinstance(value, list):
        return [_substituted(item, (*path, index), parsed, variables, allowed) for index, item in enumerate(value)]
    if not isinstance(value, str):
        return value
    names = _VARIABLE.findall(value)
    if not names:
        return value
    unknown = [name for name in names if name not in variables]
    if unknown:
        parsed.add(path, "spec.variable", f"the variable {unknown[0]} is not declared in headrace.toml")
        return value
    if not allowed.fullmatch(".".join(str(part) for part in path)):
        parsed.add(path, "spec.variable", "variables stand in identifiers and parameters only")
        return value
    if _VARIABLE.fullmatch(value):
        return variables[names[0]]
    return _VARIABLE.sub(lambda match: str(variables[match[1]]), value)
