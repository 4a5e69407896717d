"""Keys and values of the design that a later version brings: refused by name, so that nothing is silently ignored."""

from collections.abc import Iterator
from typing import Any

from entrypoints.documents.yaml_text import Path

_KINDS = ("replication", "entity", "feature_view", "feature_service")
_PIPELINE_KEYS = ("sla", "retention")
_SOURCE_KEYS = ("python",)
_SCHEDULE_KEYS = ("cron", "timezone", "misfire", "overlap")
_CONNECTION_KINDS = ("snowflake",)
_SECRET_SCHEMES = ("vault:", "aws:", "databricks:")


def found_later(document: dict[str, Any]) -> Iterator[tuple[Path, str]]:
    """Yield the path and name of each part that is not supported yet."""
    for kind in _KINDS:
        if kind in document:
            yield (kind,), f"documents of the kind {kind}"
    yield from _keys(document, (), _PIPELINE_KEYS)
    yield from _keys(document.get("source"), ("source",), _SOURCE_KEYS)
    yield from _keys(document.get("schedule"), ("schedule",), _SCHEDULE_KEYS)
    engine = _mapping(document.get("run")).get("engine")
    if engine == "spark":
        yield ("run", "engine"), "the engine spark"
    if document.get("kind") in _CONNECTION_KINDS:
        yield ("kind",), f"connections of the kind {document['kind']}"
    for name, reference in _mapping(document.get("secrets")).items():
        if isinstance(reference, str) and reference.startswith(_SECRET_SCHEMES):
            yield ("secrets", name), f"secret references of the scheme {reference.split(':')[0]}"


def without(document: Any, paths: set[Path], above: Path = ()) -> Any:
    """Copy a document without the parts at the given paths, so that the rest can be checked too."""
    if isinstance(document, dict):
        return {
            key: without(value, paths, (*above, key)) for key, value in document.items() if (*above, key) not in paths
        }
    if isinstance(document, list):
        kept = [(item, without(item, paths, (*above, index))) for index, item in enumerate(document)]
        return [rest for item, rest in kept if rest != {} or item == {}]
    return document


def _keys(value: Any, path: Path, names: tuple[str, ...]) -> Iterator[tuple[Path, str]]:
    for name in names:
        if name in _mapping(value):
            yield (*path, name), name


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
