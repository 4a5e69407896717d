"""docs/reference/types.md is what happens: every type, its extremes and its special values, on every way."""

from pathlib import Path

import pytest

from tests.ports.type_matrix import DOCUMENT, HEADER, TYPES, opened, row_of


@pytest.mark.parametrize("kind", TYPES)
async def test_type_does_what_the_reference_says(kind: str, postgres_database: str, tmp_path: Path) -> None:
    async with opened(postgres_database, tmp_path) as matrix:
        assert await row_of(matrix, kind) in DOCUMENT.read_text().splitlines()


def test_reference_names_every_type_once() -> None:
    lines = DOCUMENT.read_text().removeprefix(HEADER).splitlines()

    assert [line.split(" | ")[0].removeprefix("| ").strip("`") for line in lines] == list(TYPES)
