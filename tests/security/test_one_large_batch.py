"""A large batch is alone: nothing behind it is read before it has landed, unless a share of errors is judged at the end."""

from pathlib import Path
from typing import Any

import pytest

from domain.ports import batches
from infrastructure.stores.files import store as files
from infrastructure.stores.sql.writer import SqlWriter
from infrastructure.tabular import arrow
from tests.e2e.inside import inside

pytestmark = pytest.mark.line("29")
_RULE = "quality: [{rule: accepted_values, column: id, values: [9], on_violation: quarantine}]\n"
_ALONE = ["read", "commit", "read", "commit", "read", "commit", "commit"]


@pytest.mark.parametrize(
    ("more", "size", "expected"),
    [
        (_RULE, 3_000, _ALONE),
        ("on_error: {max_rows: 5}\n" + _RULE, 3_000, _ALONE),
        ("on_error: {max_rows: 5, max_share: 0.9}\n" + _RULE, 3_000, None),
        (_RULE, 10, ["read", "commit"]),
    ],
    ids=["large", "with errors", "with a share", "small"],
)
async def test_nothing_is_read_behind_a_large_batch_before_it_has_landed(
    more: str, size: int, expected: list[str] | None, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[str] = []
    as_planned, commit = files.FilesReader._as_planned, SqlWriter.commit

    def reading(*given: Any) -> Any:
        heard.append("read")
        return as_planned(*given)

    async def committing(*given: Any) -> Any:
        committed = await commit(*given)
        heard.append("commit")
        return committed

    monkeypatch.setattr(batches, "LARGE_ROW", 2_000)
    monkeypatch.setattr(arrow, "_OF_LARGE_ROWS", 4_000)
    monkeypatch.setattr(files.FilesReader, "_as_planned", reading)
    monkeypatch.setattr(SqlWriter, "commit", committing)
    (project / "data").mkdir(exist_ok=True)
    (project / "data/t.csv").write_text("id,v\n" + "".join(f"{n},{'x' * size}\n" for n in range(3)))
    async with inside(project) as here:
        await here.put("{version: 1, connection: landing, kind: files, options: {root: data}}")
        await here.pipeline("p", "connection: landing, path: t.csv", "table: p", more)
        report = await here.report("p")
    assert (report["counts"]["read"], report["counts"]["quarantined"]) == (3, 3)
    if expected is None:
        assert heard[:3] == ["read", "read", "commit"]
        assert heard.count("commit") == 3
    else:
        assert heard == expected
