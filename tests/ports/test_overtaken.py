"""What refused rows are known by later: their merge key where it is known, and however long keys are, a few bytes."""

import json
import tracemalloc
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest

from domain.loads.quarantine import RefusedRow, RefusedState
from domain.ports.data_store import IDataStore, JudgedBatch
from domain.ports.transformer import TransformPlan
from domain.quality.rules import OnViolation, Rule
from domain.stores.table import ORDINAL, Column
from infrastructure.stores.replayed import ReadAgain
from infrastructure.stores.sql import overtaken
from infrastructure.tabular.digests import merge_keys
from infrastructure.transforms.duckdb import DuckDBTransformer
from tests.ports.test_read_again import Load, found, judged

LONG = 300_000
MANY = 200


def _refused() -> Iterator[RefusedRow]:
    for number in range(MANY):
        record = json.dumps({"k": f"{number:>{LONG}}", "v": number})
        place = ("r", "0", "1", str(number))
        yield RefusedRow(place, "run", "rule", None, "", record, "{}", RefusedState.OPEN, None, datetime.now(UTC))


def test_keys_as_long_as_rows_are_remembered_by_a_few_bytes() -> None:
    rows = pa.table({"k": [f"{number:>{LONG}}" for number in (3, MANY + 1, 7)], "v": [1, 2, 3]})
    tracemalloc.start()
    try:
        again = ReadAgain(["k"], _refused())
        kept, highest = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        places = again.places(rows)
        looked = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert [place[3] for place in places] == ["3", "7"]
    assert kept < MANY * 1_000
    assert highest < 20 * LONG
    assert looked < 40 * LONG


def test_texts_that_begin_alike_are_told_apart_and_left_out_where_none_begins_so() -> None:
    refused = list(_refused())[:2]
    again = ReadAgain(["k"], refused)

    assert again.places(pa.table({"k": [f"{1:>{LONG}}", " " * 40, "other", None]})) == [refused[1].place]


RULE = Rule("between", OnViolation.QUARANTINE, column="v", maximum=10)


async def transformed(key: tuple[str, ...], rows: pa.Table, **plan: Any) -> JudgedBatch:
    source = (Column("id", "string"), Column("v", "int64"))
    async with DuckDBTransformer().prepare(TransformPlan(source, rules=(RULE,), key=key, **plan)) as prepared:
        return await prepared.apply(rows)


@pytest.mark.clause("ITransformer", 2)
async def test_refused_rows_have_their_merge_key_and_accepted_ones_their_place() -> None:
    rows = pa.table({"id": ["a", "b", None, "a", "b"], "v": pa.array([1, 99, 99, 2, 3], pa.int64())})

    by_key, plain = await transformed(("id",), rows), await transformed((), rows)

    expected = merge_keys(pa.table({"id": ["b", None]}), ())
    assert pa.table(by_key.refused).column("merge_key").to_pylist() == expected
    assert expected[1] is None
    assert pa.table(by_key.accepted).column(ORDINAL).to_pylist() == [3, 4]
    assert pa.table(plain.refused).column("merge_key").to_pylist() == [None, None]
    assert ORDINAL not in pa.table(plain.accepted).column_names
    untouched = await transformed(("id",), rows.slice(3))
    assert pa.table(untouched.accepted).column(ORDINAL).to_pylist() == [0, 1]


@pytest.mark.clause("ITransformer", 2)
async def test_of_a_row_that_does_not_convert_the_merge_key_is_not_known() -> None:
    rows = pa.table({"id": ["a", "b"], "v": ["x", "99"]})

    refused = (await transformed(("id",), rows, source_is_text=True)).refused

    known = pa.table(refused).column("merge_key").to_pylist()
    assert known == [None, *merge_keys(pa.table({"id": ["b"]}), ())]


def test_letter_case_counts_but_in_a_uuid() -> None:
    keys = pa.table({"a": ["AB", "ab"], "b": [1, 1]})

    assert len(set(merge_keys(keys, ()))) == 2
    assert len(set(merge_keys(keys, ("a",)))) == 1


def keyed(batch: JudgedBatch, known: dict[int, int]) -> JudgedBatch:
    """The batch with the merge keys of refused rows, by ordinal, and the ordinals of the others."""
    keys = {n: merge_keys(pa.table({"id": pa.array([key], pa.int64())}), ())[0] for n, key in known.items()}
    refused, accepted = pa.table(batch.refused), pa.table(batch.accepted)
    told = pa.array([keys.get(n) for n in range(refused.num_rows)], pa.string())
    refused = refused.set_column(refused.column_names.index("merge_key"), "merge_key", told)
    behind = pa.array(range(refused.num_rows, refused.num_rows + accepted.num_rows), pa.int64())
    return JudgedBatch(accepted.append_column(ORDINAL, behind), refused, batch.counts, batch.measures)


@pytest.mark.needs("merges")
@pytest.mark.clause("IDataStore", 27)
@pytest.mark.parametrize("most", [100_000, 0], ids=["remembered", "too many"])
@pytest.mark.parametrize("shadow", [False, True], ids=["by batch", "as a whole"])
async def test_what_is_overtaken_is_superseded_with_what_lands(
    store: IDataStore, shadow: bool, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overtaken, "MOST_KEYS", most)
    first = Load(store, "r1", source_key=())
    await (await first.commits(keyed(judged([1, 2, 3], [1]), {0: 1, 1: 2}), keyed(judged([], [3]), {}))).is_published()
    assert await found(store) == [(1, "superseded", "01"), (2, "open", None), (3, "open", None)]

    second = await Load(store, "r2", shadow=shadow, source_key=()).commits(
        keyed(judged([5, 2], [5]), {0: 5, 1: 2}), keyed(judged([6], [2]), {0: 6})
    )
    if shadow:
        assert [state for _, state, _ in await found(store)] == [
            *("superseded", "open", "open", "waiting", "waiting", "waiting")
        ]
        await second.is_abandoned()
        expected = ["superseded", "open", "open", *["abandoned"] * 3]
    else:
        await second.is_published()
        expected = ["superseded", "superseded", "open", "superseded", "superseded", "open"]
    assert [state for _, state, _ in await found(store)] == expected


@pytest.mark.needs("merges")
@pytest.mark.clause("IDataStore", 27)
async def test_what_a_stage_overtakes_is_superseded_when_it_is_published(store: IDataStore) -> None:
    await (await Load(store, "r1", source_key=()).commits(keyed(judged([1, 2], []), {0: 1, 1: 2}))).is_published()
    staged = Load(store, "r2", shadow=True, source_key=())
    await (await staged.commits(keyed(judged([3, 4], [3]), {0: 3, 1: 4}), keyed(judged([], [1]), {}))).is_published()

    assert await found(store) == [
        *((1, "superseded", "02"), (2, "open", None), (3, "superseded", "02"), (4, "open", None))
    ]
