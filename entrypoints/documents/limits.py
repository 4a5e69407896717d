"""How much a document may say: what is refused before it is read, and before it is checked."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

Path = tuple[str | int, ...]


@dataclass(frozen=True)
class DocumentLimits:
    """The bounds of one document; the settings are called the same, below `limits`."""

    document_bytes: int = 256 * 1024
    document_depth: int = 40
    document_nodes: int = 30_000
    columns: int = 5_000
    steps: int = 100
    rules: int = 500

    def exceeded(self, document: dict[str, Any]) -> Iterator[tuple[Path, str, str]]:
        """Say which parts of a document are too many: path, code and sentence."""
        for name, most, what in (("transform", self.steps, "steps"), ("quality", self.rules, "rules")):
            part = document.get(name)
            if isinstance(part, list) and len(part) > most:
                yield (name,), f"spec.too_many_{what}", _told(f"{name} has more than {most:,} {what}", what)
        for path, count in _names_of_columns(document):
            if count > self.columns:
                sentence = _told(f"names more than {self.columns:,} columns", "columns")
                yield path, "spec.too_many_columns", sentence

    def too_large(self) -> str:
        """The sentence for a document with too many bytes."""
        return _told(f"The document has more than {self.document_bytes:,} bytes", "document_bytes") + "."

    def too_deep(self) -> str:
        """The sentence for a document that nests too deep."""
        return _told(f"The document nests deeper than {self.document_depth}", "document_depth") + "."

    def too_many(self) -> str:
        """The sentence for a document of too many parts."""
        return _told(f"The document has more than {self.document_nodes:,} keys and values", "document_nodes") + "."


def _told(sentence: str, name: str) -> str:
    return f"{sentence} (HEADRACE_LIMITS__{name.upper()})"


def _names_of_columns(document: dict[str, Any]) -> Iterator[tuple[Path, int]]:
    """Each part of a document that names columns, and how many it names."""
    places: list[tuple[Path, Any]] = []
    source, destination = _mapping(document.get("source")), _mapping(document.get("destination"))
    places += [
        (("source", "key"), source.get("key")),
        (("destination", "key"), destination.get("key")),
        (("source", "options", "types"), _mapping(source.get("options")).get("types")),
    ]
    for index, step in enumerate(_listed(document.get("transform"))):
        places += [(("transform", index, name), value) for name, value in _mapping(step).items()]
    for index, rule in enumerate(_listed(document.get("quality"))):
        places.append((("quality", index, "columns"), _mapping(rule).get("columns")))
    for index, test in enumerate(_listed(document.get("tests"))):
        places.append((("tests", index, "types"), _mapping(test).get("types")))
        for name in ("given", "expect", "quarantined"):
            rows = _listed(_mapping(test).get(name))
            places += [(("tests", index, name, number), row) for number, row in enumerate(rows)]
    return ((path, len(value)) for path, value in places if isinstance(value, list | dict))


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
