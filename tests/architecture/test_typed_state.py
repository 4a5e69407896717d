"""State has types: what travels as a mapping of names to anything is a document, a row or a payload, and is listed."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_EDGES = frozenset({"to_json", "from_json"})
_OPEN = frozenset({"dict", "Mapping", "MutableMapping"})
DOCUMENT = "a document as people have written it, before it is read into a spec, or what they have left open in it"
PARAMETERS = "the parameters of a run, which its caller names"
ROW = "a row of values"
PAYLOAD = "what an event or a message says, on its way out"

ALLOWED: dict[str, dict[str, str]] = {
    "application/catalog/checks.py": {"Checks.of_connection": DOCUMENT, "Checks.of_pipeline": DOCUMENT},
    "application/catalog/documents.py": {"PutDocument": DOCUMENT},
    "application/catalog/flows.py": {"": DOCUMENT, "FlowReader.specs": DOCUMENT, "_outline": DOCUMENT},
    "application/catalog/forecast.py": {
        "PlanForecaster._before_applied": DOCUMENT,
        "PlanForecaster._foretold": DOCUMENT,
    },
    "application/events/outbox.py": {"": PAYLOAD},
    "application/events/telemetry.py": {"EventTelemetry.__call__": PAYLOAD, "EventTelemetry._count": PAYLOAD},
    "application/pipelines/rehearse.py": {"Rehearsal.first_row": ROW},
    "application/pipelines/spec_tests.py": {"SpecTester._applied": ROW},
    "application/plain_rows.py": {"rows_of": ROW},
    "application/runs/launch.py": {"_check": PARAMETERS},
    "domain/events.py": {"Event.payload": PAYLOAD},
    "domain/pipelines/spec.py": {
        "SourceSpec": DOCUMENT,
        "PipelineSpec.from_document": DOCUMENT,
        "PipelineSpec.fingerprint": DOCUMENT,
        "PipelineSpec.with_parameters": PARAMETERS,
        "PipelineSpec.lane_for": PARAMETERS,
        **dict.fromkeys(("_source", "_run", "_retry", "_cursor", "_destination", "_rule"), DOCUMENT),
    },
    "domain/pipelines/spec_test.py": {"": ROW, "SpecTest.of": DOCUMENT},
    "domain/pipelines/steps.py": {"step_of": DOCUMENT},
    "domain/ports/message_queue.py": {"Message": PAYLOAD},
    "domain/ports/records/documents.py": {"StoredDocument": DOCUMENT, "IDocumentRecords.put": DOCUMENT},
    "domain/ports/records/events.py": {"StoredEvent": PAYLOAD},
    "domain/runs/run.py": {"RunRequest": PARAMETERS},
    "domain/stores/connection.py": {"ConnectionSpec": DOCUMENT, "ConnectionSpec.from_document": DOCUMENT},
    "domain/toml_text.py": {"read_toml": DOCUMENT},
}


def _is_open(node: ast.AST) -> bool:
    """`Mapping[str, Any]` and its like."""
    if not (isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id in _OPEN):
        return False
    return isinstance(node.slice, ast.Tuple) and [ast.unparse(part) for part in node.slice.elts] in (
        ["str", "Any"],
        ["str", "object"],
        ["Any", "Any"],
    )


def _is_bare(node: ast.AST) -> bool:
    """`dict` alone, as an annotation or within one."""
    annotations = {
        ast.AnnAssign: "annotation",
        ast.arg: "annotation",
        ast.FunctionDef: "returns",
        ast.AsyncFunctionDef: "returns",
    }
    found = getattr(node, annotations.get(type(node), ""), None)  # type: ignore[call-overload]
    if found is None:
        return False
    subscripted = {id(part.value) for part in ast.walk(found) if isinstance(part, ast.Subscript)}
    return any(
        isinstance(part, ast.Name) and part.id in _OPEN and id(part) not in subscripted for part in ast.walk(found)
    )


def open_mappings(tree: ast.AST, within: tuple[str, ...] = ()) -> Iterator[str]:
    """Where mappings of names to anything are spoken of, by the class and function around them, but for the edges."""
    for node in ast.iter_child_nodes(tree):
        inner = (
            (*within, node.name) if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) else within
        )
        if inner and inner[-1] in _EDGES:
            continue
        if _is_open(node) or _is_bare(node):
            yield ".".join(inner)
        yield from open_mappings(node, inner)


def found_in(layer: str) -> dict[str, set[str]]:
    found = {
        str(path.relative_to(ROOT)): set(open_mappings(ast.parse(path.read_text())))
        for path in sorted((ROOT / layer).rglob("*.py"))
    }
    return {path: names for path, names in found.items() if names}


@pytest.mark.parametrize("layer", ["domain", "application"])
def test_no_state_travels_as_a_mapping_of_names_to_anything(layer: str) -> None:
    listed = {path: set(names) for path, names in ALLOWED.items() if path.startswith(f"{layer}/")}

    assert found_in(layer) == listed, (
        "give it a type with to_json and from_json; or list it with the reason, if it is a document"
    )


@pytest.mark.parametrize(
    "text",
    [
        "class Run:\n    report: Mapping[str, Any] | None = None",
        "def merged(left: Sequence[dict[str, object]]) -> int: ...",
        "class Run:\n    report: dict",
        "def told() -> Mapping: ...",
        "def told():\n    found: dict[str, Any] = {}",
        "States = Mapping[str, Mapping[str, Any]]",
    ],
)
def test_check_sees_it(text: str) -> None:
    assert list(open_mappings(ast.parse(text)))


@pytest.mark.parametrize(
    "text",
    [
        "class Run:\n    def to_json(self) -> dict[str, Any]: ...",
        "class Run:\n    @classmethod\n    def from_json(cls, value: Mapping[str, Any]) -> 'Run': ...",
        "class Run:\n    counts: Mapping[str, int]",
        "found = dict(vars(self))",
    ],
)
def test_edges_and_mappings_of_known_values_are_no_finding(text: str) -> None:
    assert not list(open_mappings(ast.parse(text)))
