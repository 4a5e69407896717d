"""Point-in-time answers of each engine equal those of a search through all rows."""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import duckdb
import pytest

from infrastructure.stores.sql.point_in_time import (
    AT,
    EVENT_TIME,
    FRESH,
    MISSING,
    PUBLICATION,
    READABLE,
    RESET,
    ROW,
    STALE,
    TOMBSTONE,
    PointInTime,
)
from tests.somebody import Somebody

FIRST = -(2**63)
Run = Callable[[str], Sequence[tuple[Any, ...]]]


@dataclass(frozen=True)
class Row:
    """One row of a history; its publication is published at ten times its number."""

    entity: int
    event_time: int
    publication: int
    readable: int | None = None
    is_tombstone: bool = False
    is_reset: bool = False

    @property
    def published_at(self) -> int:
        return self.publication * 10

    @property
    def value(self) -> str:
        return f"{self.entity} of {self.publication} at {self.event_time}"


@dataclass(frozen=True)
class Engine:
    name: str
    run: Run

    def answer(self, rows: Sequence[Row], questions: Sequence[tuple[int, int]], asked: PointInTime) -> list[Any]:
        """The answers in the order of the questions: status, event time, publication, value."""
        self.run("DELETE FROM history")
        self.run("DELETE FROM publications")
        self.run("DELETE FROM questions")
        if rows:
            values = ", ".join(
                f"({row.entity}, 'k', {row.event_time}, {row.publication}, "
                f"{'NULL' if row.readable is None else row.readable}, {row.is_tombstone}, {row.is_reset}, '{row.value}', 1)"
                for row in rows
            )
            self.run(f"INSERT INTO history VALUES {values}")
            numbers = ", ".join(f"({number}, {number * 10})" for number in {row.publication for row in rows})
            self.run(f"INSERT INTO publications VALUES {numbers}")
        values = ", ".join(f"({place}, {entity}, 'k', {at})" for place, (entity, at) in enumerate(questions))
        self.run(f"INSERT INTO questions VALUES {values}")
        statement = asked.for_postgres() if self.name == "postgres" else asked.for_duckdb()
        return [row[1:5] for row in sorted(self.run(statement))]


ASKED = PointInTime("history", "publications", "questions", ("entity", "order"), ("turn", "from"))
"""Names that a statement has to quote, and that are like its own."""


def make(run: Run) -> None:
    run(
        f'CREATE TABLE history (entity integer, "order" text, {EVENT_TIME} bigint, {PUBLICATION} bigint, '
        f'{READABLE} bigint, {TOMBSTONE} boolean, {RESET} boolean, turn text, "from" integer)'
    )
    run("CREATE TABLE publications (number bigint, published_at bigint)")
    run(f'CREATE TABLE questions ({ROW} bigint, entity integer, "order" text, {AT} bigint)')


@pytest.fixture(params=["duckdb", "postgres"])
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    if request.param == "duckdb":
        with duckdb.connect() as connection:
            engine = Engine("duckdb", lambda text: connection.execute(text).fetchall())
            make(engine.run)
            yield engine
        return
    somebody: Somebody = request.getfixturevalue("somebody")
    make(somebody.does)
    yield Engine("postgres", somebody.does)


def searched(rows: Sequence[Row], entity: int, at: int, asked: PointInTime) -> tuple[Any, ...]:
    """What could be known of an entity at a time, found by looking at every row."""
    known = [row for row in rows if row.entity == entity and (asked.as_of is None or row.published_at <= asked.as_of)]
    resets = [row for row in known if row.is_reset]
    best = None
    for row in known:
        turn = sum(reset.publication <= row.publication for reset in resets)
        begun = max((reset.published_at for reset in resets if reset.publication <= row.publication), default=FIRST)
        readable = row.published_at if row.readable is None else row.readable
        since = row.published_at if row.is_reset else max(row.event_time, readable, begun)
        place = (turn, row.event_time, row.publication)
        if since <= at and (best is None or place > best[0]):
            best = (place, row)
    if best is None or best[1].is_tombstone:
        return (MISSING, None, None, None)
    row = best[1]
    if asked.max_age is not None and at - row.event_time > asked.max_age:
        return (STALE, row.event_time, row.publication, None)
    return (FRESH, row.event_time, row.publication, row.value)


def drawn(chance: random.Random, *, with_resets: bool) -> list[Row]:
    """A history with ties, late rows, tombstones and rollbacks: one row of an entity and an event time in each."""
    rows: dict[tuple[int, int, int], Row] = {}
    last = chance.randint(1, 9)
    for publication in range(1, last + 1):
        for _ in range(chance.randint(1, 4)):
            entity, event_time = chance.randint(0, 2), chance.randint(-20, 100)
            readable = chance.choice((None, None, event_time + 15, chance.randint(-20, 120)))
            row = Row(entity, event_time, publication, readable, chance.random() < 0.15)
            rows[entity, event_time, publication] = row
        if with_resets and publication > 1 and chance.random() < 0.3:
            entity = chance.randint(0, 2)
            rows = {key: row for key, row in rows.items() if (key[0], key[2]) != (entity, publication)}
            is_gone = chance.random() < 0.3
            event_time = FIRST if is_gone else chance.randint(-20, 80)
            rows[entity, event_time, publication] = Row(entity, event_time, publication, None, is_gone, True)
    return list(rows.values())


@pytest.mark.invariant("F7")
@pytest.mark.parametrize("with_resets", [False, True], ids=["plain", "with-rollbacks"])
def test_answers_are_those_of_a_search_through_all_rows(with_resets: bool, engine: Engine) -> None:
    chance = random.Random(20)
    kinds = set()
    for _ in range(60):
        rows = drawn(chance, with_resets=with_resets)
        questions = [(chance.randint(0, 3), chance.randint(-30, 130)) for _ in range(25)]
        asked = replace(
            ASKED,
            max_age=chance.choice((None, 0, 20, 60)),
            as_of=chance.choice((None, None, 35, 60)),
            has_resets=with_resets or chance.random() < 0.5,
        )
        expected = [searched(rows, entity, at, asked) for entity, at in questions]
        assert engine.answer(rows, questions, asked) == expected, (rows, asked)
        kinds |= {answer[0] for answer in expected}
    assert kinds == {MISSING, STALE, FRESH}


@pytest.mark.invariant("F7")
def test_newest_row_answers_though_it_is_a_tombstone_or_too_old(engine: Engine) -> None:
    rows = [Row(0, 5, 1), Row(0, 8, 2, is_tombstone=True), Row(1, 5, 1), Row(1, 6, 2)]
    asked = replace(ASKED, max_age=20)

    found = engine.answer(rows, [(0, 10), (0, 25), (1, 19), (1, 26), (1, 27)], asked)

    assert found == [
        (FRESH, 5, 1, "0 of 1 at 5"),
        (MISSING, None, None, None),
        (FRESH, 5, 1, "1 of 1 at 5"),
        (FRESH, 6, 2, "1 of 2 at 6"),
        (STALE, 6, 2, None),
    ]


@pytest.mark.invariant("F7")
def test_what_is_known_as_of_a_time_stays_the_same_for_ever(engine: Engine) -> None:
    rows = [Row(0, 5, 1), Row(0, 7, 3, readable=7), Row(0, 6, 4, is_reset=True)]
    before = engine.answer(rows[:1], [(0, 20), (0, 100)], replace(ASKED, as_of=25))
    after = engine.answer(rows, [(0, 20), (0, 100)], replace(ASKED, as_of=25))

    assert before == after == [(FRESH, 5, 1, "0 of 1 at 5")] * 2
    assert engine.answer(rows, [(0, 20), (0, 39), (0, 40)], ASKED) == [
        (FRESH, 7, 3, "0 of 3 at 7"),  # Its column says that it could be read before it was published.
        (FRESH, 7, 3, "0 of 3 at 7"),
        (FRESH, 6, 4, "0 of 4 at 6"),  # A rollback goes back to what was.
    ]


@pytest.mark.invariant("F7")
def test_rollback_is_known_only_from_its_publication_and_later_pushes_are_in_its_turn(engine: Engine) -> None:
    rows = [
        Row(0, 50, 1, readable=50),
        Row(0, 90, 2, readable=90),
        Row(0, FIRST, 10, is_tombstone=True, is_reset=True),
        Row(0, 60, 11, readable=60),
    ]
    found = engine.answer(rows, [(0, 55), (0, 95), (0, 99), (0, 100), (0, 101)], ASKED)

    assert [answer[:3] for answer in found] == [
        (FRESH, 50, 1),
        (FRESH, 90, 2),
        (FRESH, 90, 2),
        (FRESH, 60, 11),
        (FRESH, 60, 11),
    ]
