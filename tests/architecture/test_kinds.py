"""The kinds of stores are listed once, and every place that needs one thing for each kind has it for each."""

import ast
import re
from dataclasses import fields
from pathlib import Path
from typing import get_args

import pytest

from domain.stores.capabilities import Capabilities
from domain.stores.kinds import KINDS, DefaultKindName, StoreKindName
from entrypoints.composition.gateways import Gateways
from entrypoints.documents.connection_models import OPTIONS
from tests.ports.backends import BACKENDS

ROOT = Path(__file__).parents[2]
_LIST = "domain/stores/kinds.py"


def test_list_and_names_agree() -> None:
    assert set(KINDS) == set(get_args(StoreKindName))
    assert {name for name, kind in KINDS.items() if kind.may_be_default} == set(get_args(DefaultKindName))


@pytest.mark.parametrize(
    "place",
    [
        pytest.param(lambda: OPTIONS, id="options of connections"),
        pytest.param(lambda: Gateways.connection_store.providers, id="stores of connections"),
    ],
)
def test_each_kind_has_its_own(place: object) -> None:
    assert callable(place)
    assert set(place()) == set(KINDS)


def test_each_kind_that_settings_may_choose_has_a_store_and_a_row_of_the_suite() -> None:
    chosen = set(get_args(DefaultKindName))
    assert set(Gateways.data_store.providers) == chosen
    assert set(BACKENDS) >= chosen


def test_stores_that_one_process_alone_can_have_open_are_told_by_their_kind() -> None:
    """Commands refuse to open one beside a running `up`; of one that forgets there is nothing to resume from."""
    assert {name for name, kind in KINDS.items() if kind.has_one_process} == {"duckdb"}
    assert {name for name, kind in KINDS.items() if not kind.is_lasting} == {"memory"}


def test_every_promise_of_a_store_is_read_by_somebody() -> None:
    texts = [
        path.read_text()
        for folder in ("application", "infrastructure", "tests/ports")
        for path in sorted((ROOT / folder).rglob("*.py"))
    ]
    for field in fields(Capabilities):
        read = re.compile(rf'(capabilities|promised|able)\.{field.name}\b|needs\("{field.name}"\)')
        assert any(read.search(text) for text in texts), field.name


def test_stores_promise_what_they_have_promised_before() -> None:
    """Who takes a promise back loses the tests that hold it."""
    everything = {field.name for field in fields(Capabilities)} - {"wires", "landing_wires"}
    promised = {
        name: {each for each in everything if getattr(backend.promises, each)} for name, backend in BACKENDS.items()
    }
    wires = {name: (len(b.promises.wires), len(b.promises.landing_wires)) for name, b in BACKENDS.items()}
    kept = {
        "memory": ({"merges", "shares_snapshots", "has_far_times"}, (0, 0)),
        "duckdb": (everything - {"enforces_keys", "has_paths"}, (0, 1)),
        "postgres": (everything - {"folds_case", "has_paths"}, (1, 1)),
    }
    assert {name: (promised[name], wires[name]) for name in kept} == kept


def test_no_other_place_lists_or_compares_kinds() -> None:
    """Whoever adds a kind finds what to say of it in one file."""
    found = []
    for folder in ("domain", "application", "infrastructure", "entrypoints"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            name = path.relative_to(ROOT).as_posix()
            found += [f"{name}:{line}" for line in _compared(path) if name != _LIST]
    assert found == []


def _compared(path: Path) -> list[int]:
    """The lines that compare a store's kind with text."""
    lines = []
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Compare):
            continue
        texts = {part.value for part in ast.walk(node) if isinstance(part, ast.Constant)}
        names = {part.attr for part in ast.walk(node) if isinstance(part, ast.Attribute)}
        if "kind" in names and texts & set(KINDS) and not names & {"metadata", "queue", "cache"}:
            lines.append(node.lineno)
    return lines
