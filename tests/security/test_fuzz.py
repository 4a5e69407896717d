"""A bounded part of `make fuzz`, with a seed of its own; and the oracles, which must notice what they are there for."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from tests.security.fuzz import hunt
from tests.security.fuzz_oracles import DuckDBOracle, Oracle, PostgresOracle, TransformOracle, smallest
from tests.security.fuzz_texts import ENGINES, Texts

_COUNTS = {"postgres": 120, "duckdb": 120, "transform": 90}


@pytest.fixture
def reachable() -> Iterator[Path]:
    """A folder that the database's server reaches, who may be somebody else."""
    with tempfile.TemporaryDirectory(prefix="headrace-fuzz-") as folder:
        yield Path(folder)


@pytest.mark.line("8", "9", "10", "12", "14")
@pytest.mark.parametrize("engine", ENGINES)
async def test_what_a_guard_lets_through_is_what_the_engine_reads(
    reachable: Path, postgres_server_url: str, engine: str
) -> None:
    found = await hunt(engine, 4711, reachable, postgres_server_url, goes_on=lambda number: number < _COUNTS[engine])

    assert found.findings == []
    assert found.texts == _COUNTS[engine]
    assert found.let_through > found.texts // 20


async def test_oracle_of_postgres_notices(
    reachable: Path, postgres_server_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.security.fuzz_oracles.relations", lambda *_: frozenset({"orders"}))
    await _notices(
        _UnguardedPostgres(reachable, postgres_server_url),
        {
            "select canary(1)": "it called",
            "select o.canary from orders o": "it called",
            "select 1 operator(public.+) 2": "it called",
            "select '1'::canary_domain": "it called",
            "select pg_read_file('/etc/passwd')": "a file was opened",
            "select 1": None,
            "select 1; select 2": "the server cannot read it",
            "select 1 as\u2028$a$; select $a$": "the server cannot read it",
            "selec 1": "the server cannot read it",
            "select (select count(*) from victim) -- unnamed": "it reads ['victim']",
            "select pg_advisory_lock(1)": "it left something behind",
        },
    )


class _UnguardedPostgres(PostgresOracle):
    def checked(self, text: str) -> None:
        pass

    async def read(self, text: str) -> str | None:
        is_read = any(part in text for part in ("; ", "selec ", "unnamed"))
        return await super().read(text) if is_read else None

    async def execute(self, text: str) -> None:
        await self._session.fetch(text)


async def test_oracle_of_duckdb_notices(reachable: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.security.fuzz_oracles.relations", lambda *_: frozenset({"orders"}))
    await _notices(
        _UnguardedDuckDB(reachable),
        {
            "select 1; select 2": "the engine reads ['SELECT', 'SELECT']",
            "delete from victim": "the engine reads ['DELETE']",
            "selec 1": "the engine cannot read it",
            "select canary(1)": "it calls what is not allowed",
            "select list_transform([1], x -> getenv('HOME'))": "it calls what is not allowed",
            "from orders, victim": "it reads ['victim']",
            "from '/etc/passwd' -- unread": "a file was opened",
            "with a as (from orders) from a": None,
        },
    )


class _UnguardedDuckDB(DuckDBOracle):
    def checked(self, text: str) -> None:
        pass

    async def read(self, text: str) -> str | None:
        return None if "unread" in text else await super().read(text)

    async def execute(self, text: str) -> None:
        with duckdb.connect() as connection:
            connection.execute("create table orders (id int); create table victim (id int)")
            connection.execute(text.replace("'/", "read_text('/").replace("csv'", "csv')"))


async def _notices(judging: Oracle, texts: dict[str, str | None]) -> None:
    try:
        await judging.open()
        found = {text: await judging.judge(text) for text in texts}
    finally:
        await judging.close()
    wrong = {
        text: found[text] for text, kind in texts.items() if not (found[text] or "None").startswith(kind or "None")
    }
    assert wrong == {}


async def test_oracle_of_steps_notices_what_depends_on_more_than_the_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter((["a"] * 5, ["b"] * 5, *[["a"]] * 5, ["a"] * 5, ["a"] * 5, *[["b"]] * 5))

    async def judged(*_: object) -> list[str]:
        return next(answers)

    monkeypatch.setattr("tests.security.fuzz_oracles._judged", judged)
    judging = TransformOracle(tmp_path / "yard")
    assert await judging.read("select * from batch") == "it gives another result when it is repeated"
    assert await judging.read("select * from batch") == "its result depends on where batches end"


async def test_texts_are_those_of_their_number_and_a_finding_is_made_small() -> None:
    assert Texts("postgres", 1).text(7) == Texts("postgres", 1).text(7)
    assert len({Texts("postgres", seed).text(number) for seed in (1, 2) for number in range(50)}) > 80

    async def judge(text: str) -> str | None:
        return "it has both" if "canary" in text and ";" in text else None

    assert await smallest("select 1, canary(2) from orders; commit", "it has both", judge) in ("canary;", "canary ;")
