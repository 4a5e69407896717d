"""Our own payloads: what somebody may put into a query, a transform, a predicate or a document, and what is due for it.

A family in one of the YAML files has `where` its texts go (query, transform, predicate, deleted_when, pipeline,
connection), the `engine` of a query, the `codes` (patterns) that it may be refused with, and a `twin` that is let
through. `texts` are texts, or `{before, repeat, times, after}` for what is too long to write, or for documents `{path:
value}` changes of the base. `with` makes one payload of each text per item, put in the place of `@@`. `at: store` marks
what only the engine's catalog can tell; `is_bounded` what may be let through because it does no harm or the engine's
deadlines bound it.
"""

import fnmatch
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

_HERE = Path(__file__).parent
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class Payload:
    """One thing to try, and its twin."""

    name: str
    where: str
    engine: str
    text: str
    codes: tuple[str, ...]
    twin: str | None
    at: str
    is_bounded: bool

    def __str__(self) -> str:
        return self.name

    def is_due(self, code: str) -> bool:
        """Whether a refusal with this code is one of those expected."""
        return any(fnmatch.fnmatchcase(code, pattern) for pattern in self.codes)

    def as_document(self) -> str:
        """The text of a whole document (JSON or YAML) that has it in its place."""
        return self.text if self.where in _DOCUMENTS else json.dumps(_document(self.where, self.text, self.engine))

    def twin_as_document(self) -> str | None:
        if self.twin is None or self.where in _DOCUMENTS:
            return self.twin
        return json.dumps(_document(self.where, self.twin, self.engine))


_DOCUMENTS = ("pipeline", "connection")
PIPELINE: dict[str, Any] = {
    "version": 1,
    "pipeline": "p",
    "source": {"connection": "default", "table": "orders", "key": ["id"]},
    "destination": {"table": "copied"},
}
CONNECTIONS: dict[str, dict[str, Any]] = {
    "postgres": {"host": "db", "port": 5432, "database": "shop", "user": "reader"},
    "duckdb": {"path": "data/shop.duckdb"},
    "files": {"root": "data"},
    "memory": {},
}


@cache
def payloads() -> tuple[Payload, ...]:
    """The whole corpus, names once each."""
    found = tuple(payload for path in sorted(_HERE.glob("*.yaml")) for payload in _of_file(path))
    assert len({payload.name for payload in found}) == len(found)
    return found


def of(*places: str, engine: str | None = None) -> tuple[Payload, ...]:
    """The payloads for some places, of one engine or all."""
    return tuple(p for p in payloads() if p.where in places and engine in (None, p.engine))


def _of_file(path: Path) -> Iterator[Payload]:
    for family in yaml.load(path.read_text(), Loader=_LOADER):
        for number, text in enumerate(_texts(family)):
            where = family["where"]
            yield Payload(
                name=f"{family['family']} {number}",
                where=where,
                engine=family.get("engine", "duckdb" if where in ("transform", "predicate", "deleted_when") else "any"),
                text=text,
                codes=tuple(family["codes"]),
                twin=_written(family, family["twin"]) if family.get("twin") is not None else None,
                at=family.get("at", "door"),
                is_bounded=family.get("is_bounded", False),
            )


def _texts(family: dict[str, Any]) -> Iterator[str]:
    for given in family["texts"]:
        text = _written(family, given)
        yield from (text.replace("@@", str(item)) for item in family.get("with", [""])) if "@@" in text else [text]


def _written(family: dict[str, Any], given: Any) -> str:
    if isinstance(given, str):
        return given
    if "repeat" in given:
        return str(given.get("before", "")) + given["repeat"] * given["times"] + str(given.get("after", ""))
    if family["where"] == "pipeline":
        return json.dumps(changed(PIPELINE, given))
    kind = family["kind"]
    base = {"version": 1, "connection": "shop", "kind": kind, "options": CONNECTIONS[kind]}
    return json.dumps(changed(base, given))


def _document(where: str, text: str, engine: str) -> dict[str, Any]:
    connection = engine if engine in CONNECTIONS else "default"
    if where == "query":
        return changed(PIPELINE, {"source": {"connection": connection, "query": text}})
    if where == "transform":
        return changed(PIPELINE, {"transform": [{"sql": text}]})
    if where == "predicate":
        return changed(PIPELINE, {"quality": [{"rule": "sql", "sql": text}]})
    return changed(
        PIPELINE,
        {"destination.mode": "merge", "destination.key": ["id"], "destination.deleted_when": text},
    )


def changed(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """A copy of a document with other values at dotted paths."""
    document: dict[str, Any] = json.loads(json.dumps(base))
    for path, value in changes.items():
        node = document
        *parents, leaf = path.split(".")
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = value
    return document
