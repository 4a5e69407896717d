"""Patterns of which RE2's automaton has more states than there are bytes: each byte of a text takes a thousand times as
long.
"""

import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from domain.errors import InvalidInputError, PlatformError
from domain.pipelines.spec import SourceSpec
from domain.ports.transformer import TransformPlan
from domain.quality.rules import OnViolation, Rule
from domain.stores.table import Column
from infrastructure.bench.bench import Bench
from infrastructure.queries.duckdb_costs import may_be_slow_patterns, repetitions_within
from infrastructure.queries.duckdb_patterns import FREE, WORN, Patterns, weight_of
from infrastructure.queries.duckdb_queries import IN_PROCESS
from infrastructure.stores.duckdb.file import DuckDBOptions
from infrastructure.stores.duckdb.store import DuckDBDataStore
from infrastructure.transforms.bench import BenchTransform, BenchTransformer, StepPlanner
from infrastructure.transforms.duckdb import DuckDBTransformer
from infrastructure.transforms.python import PythonHooks
from infrastructure.transforms.sizes import is_written, keeps_size
from tests.ports.transformers import one_bench

pytestmark = pytest.mark.line("29")
WORST = "(?:a|b)*a(?:a|b){990}(?:a|b)*"
SLOW = (
    WORST,
    "[ab]*a[ab]{70}",
    "(?:ab|ba|aa|bb)*ab(?:ab|ba|aa|bb){40}c",
    "(?i)(?:[ab])*a(?:[A-B]){200}",
    "(?s).*a.{90}",
    r"(?:\w|-)*\d[\w-]{80}",
    r"(\pL|\d)*a\pL{30}z",
    r"(?:\b.{100}q|x)*",
    "[^b]*a" + "[ac]" * 90,
    "(a?a?[ab]){40}b*a" + "(a|b)?" * 80,
    "(?:[ab]*?a[ab]{80}?)+?",
    "[ab]*a((((([ab]{3}){3}){3}){3})c)",
    "[éa]*a[éa]{100}",
    "(" * 200 + "a*" + ")" * 200,
    "[ab]*a(?i)" + "b" * 100 + "(?-i)x" + "|[aA]*a(?i:" + "a" * 90 + ")",
)
EVERYDAY = (
    "^[a-zA-Z0-9._%+-]+@[a-zA-Z0-9.-]+[.][a-zA-Z]{2,63}$",
    "^[a-zA-Z0-9.!#$%&'*+/=?^_`{|}~-]+@[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
    "(?:[.][a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?)*$",
    "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
    r"^(\+\d{1,2}\s)?\(?\d{3}\)?[\s.-]\d{3}[\s.-]\d{4}$",
    r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?(Z|[+-]\d{2}:\d{2})",
    "^https?://[^ /$.?#].[^ ]*$",
    "[A-Z]{2}[0-9]{2}[A-Z0-9]{11,30}",
    r"\b[a-f0-9]{64}\b",
    r"\b[a-fA-F0-9]{128}\b",
    "^([0-9]{1,3}[.]){3}[a-f]{64}$",
    r"^[\p{L}\s'-]{1,100}$",
    r"\p{L}{2,50}",
    "^.{1,500}$",
    "a{100}",
    r'^(\S+) (\S+) (\S+) \[([^\]]+)\] "([^"]*)" (\d{3}) (\d+|-)',
    "|".join(f"word{number}" for number in range(20)),
    "(?i)"
    + "|".join(f"error {word}s" for word in ("disk", "memory", "network", "timeout", "refused", "unknown", "fatal")),
)
URL = r"https?:\/\/(www\.)?[-a-zA-Z0-9@:%._\+~#=]{1,256}\.[a-zA-Z0-9()]{1,6}\b([-a-zA-Z0-9()@:%_\+.~#?&//=]*)"
_FUNCTIONS = (
    "regexp_full_match(v, '{}')", "v similar to '{}'", "regexp_extract(v, '{}') = 'a'", "regexp_replace(v, '{}', 'b', 'g') = 'a'",
    "len(regexp_extract_all(v, '{}')) > 1", "len(regexp_split_to_array(v, '{}')) > 1", "len(string_split_regex(v, '{}')) > 1",
)  # fmt: skip


def _written(pattern: str) -> str:
    return pattern.replace("'", "''")


def _plan(*patterns: str) -> TransformPlan:
    rules = tuple(Rule("matches", OnViolation.QUARANTINE, column="v", pattern=pattern) for pattern in patterns)
    return TransformPlan(source=(Column("v", "string"),), rules=rules)


@pytest.mark.parametrize(("number", "pattern"), list(enumerate(SLOW)))
def test_patterns_with_too_many_states_leave_the_process(number: int, pattern: str) -> None:
    for call in (_FUNCTIONS[0], _FUNCTIONS[2 + number % 5]):
        assert not IN_PROCESS.predicate(call.format(_written(pattern))).is_size_preserving, call
    assert is_written(_plan(".+", pattern))
    assert not keeps_size(_plan(".+", pattern))


@pytest.mark.parametrize("pattern", EVERYDAY)
def test_everyday_patterns_stay_in_the_process(pattern: str) -> None:
    is_plain = repetitions_within(pattern) == 0  # Where it is not, steps left the process before, too.
    for call in _FUNCTIONS:
        assert IN_PROCESS.predicate(call.format(_written(pattern))).is_size_preserving is is_plain, call
    assert keeps_size(_plan(pattern, pattern))


def test_what_is_found_anywhere_may_be_slow_where_a_whole_text_is_not() -> None:
    for pattern, is_slow in (("a[ab]{90}c", True), (URL, True), ("[ab]{90}c", False), ("^a[ab]{90}c", False)):
        assert (Patterns().places(pattern, "regexp_matches") > FREE) is is_slow, pattern
        assert Patterns().places(pattern, "regexp_full_match") == 0
    patterns = Patterns()
    backward = "[ab]{100}a[ab]*"
    assert patterns.places(backward, "regexp_matches") == 0
    assert patterns.places(backward + "$", "regexp_matches") >= 100
    assert patterns.places(backward, "regexp_extract") >= 90
    assert patterns.places("(a|b)*.{0,90}c", "regexp_matches") == 0
    assert patterns.places("(a|b)*.{0,90}c", "regexp_extract") >= 90


def test_options_count() -> None:
    for options in ("i", "is", "gi"):
        assert Patterns().places("[ab]*a[AB]{90}", "regexp_full_match", options) >= 90
    assert Patterns().places("[ab]*a[AB]{90}", "regexp_full_match") == 0
    assert Patterns().places("[ab]*a[AB]{90}", "regexp_full_match", None) >= 90
    assert not IN_PROCESS.predicate("regexp_full_match(v, '[ab]*a[AB]{90}', 'i')").is_size_preserving
    assert IN_PROCESS.predicate("regexp_full_match(v, '[ab]*a[AB]{90}', 'c')").is_size_preserving


READING_AGAIN = (
    "a[^x]*x|a", ".*?x|.", "(?s).*x|.", "a(.*b)?", " +x| ", "(<s>.*?</s>)|<[^>]+>", "(?:(?:a|b)*c)?", r"a(?:\b.*x)?", "a$|a(.*x)?",
    "(?m)a(?:[^x]*x)?$|a", "ab[^x]*x|ab", "a[^é]*é|a", "(?U)a(?:.*b)??",
)  # fmt: skip
READING_ONCE = (
    r"a(\s+b)?", "[a-z]+[0-9]", r"\s+", r",\s*", "<[^>]*>", r"\d+(,\d{3})*(\.\d+)?", r'"[^"]*"|\S+', r"\b\w+\b", "x*", r"^\s+|\s+$",
    r'"(\\.|[^"\\])*"', r"/\*.*?\*/", r"(\d{1,2}):(\d{2})(:\d{2})?", r'(\w+)=("[^"]*"|\S+)', "&[a-z]+;|&#[0-9]+;", "[.!?] +", r"\r?\n",
)  # fmt: skip


def test_patterns_for_which_a_text_is_read_again_for_each_match_leave_the_process() -> None:
    finding = [*_FUNCTIONS[3:], "regexp_replace(v, '{}', 'b', v) = 'a'"]
    for number, pattern in enumerate(READING_AGAIN):
        assert not IN_PROCESS.predicate(finding[number % len(finding)].format(pattern)).is_size_preserving, pattern
        for call in ("regexp_replace(v, '{}', 'g') = 'a'", "regexp_replace(v, '{}', 'b', 'i') = 'a'", *_FUNCTIONS[:3]):
            assert IN_PROCESS.predicate(call.format(pattern)).is_size_preserving, (call, pattern)
    for number, pattern in enumerate(READING_ONCE):
        call = finding[number % 4].format(_written(pattern))
        assert IN_PROCESS.predicate(call).is_size_preserving is (repetitions_within(pattern) == 0), call


def test_patterns_that_are_not_written_leave_the_process() -> None:
    for condition in (
        "v ~ w",
        "v similar to ('a' || 'b')",
        "regexp_matches(v, lower('A'))",
        "v like w",
        "v not ilike w",
        "v glob w",
    ):
        assert not IN_PROCESS.predicate(condition).is_size_preserving, condition


def test_long_patterns_of_like_leave_the_process() -> None:
    for pattern in ("%" + "a_" * 1_000 + "b%", "%" + "a" * 2_000 + "b_%"):
        for condition in ("v like '{}'", "v not ilike '{}'", "v glob '{}'", "v like '{}' escape '$'"):
            assert not IN_PROCESS.predicate(condition.format(pattern)).is_size_preserving, condition
    for condition in (
        "v like '%a%a%a%a%a%a%a%a_%b'",
        "v ilike 'abc%'",
        "v glob '*a*[ab]*'",
        f"v like '%{'word' * 100}%'",
    ):
        assert IN_PROCESS.predicate(condition).is_size_preserving, condition


@pytest.mark.parametrize(
    "pattern", ["(((", "a)", "a**", "[a", r"\8", "(?=a)", "(?P<n", "x{2}{3}", "[[:foo:]]", "*a", "a\\"]
)
def test_patterns_that_cannot_be_read_count_as_slow(pattern: str) -> None:
    assert weight_of(pattern) == WORN
    assert Patterns().places(pattern, "regexp_matches") == WORN


def test_many_patterns_are_looked_at_for_a_bounded_time() -> None:
    slow = [f"[ab]*{'a' * (number + 1)}[ab]{{90}}" for number in range(100)]
    patterns = Patterns()
    for pattern in slow:
        assert patterns.places(pattern, "regexp_full_match") >= 90
    assert patterns.steps_left < 0
    assert patterns.places("[ab]*c", "regexp_full_match") == 0
    assert is_written(_plan(*[f"{number}[ab]*a[ab]{{60}}" for number in range(100)]))
    assert not is_written(_plan(*[f"{number}[a-z]+" for number in range(100)]))


@pytest.mark.parametrize(
    "pattern",
    [
        "(?:){99999999999}[ab]*a[ab]{90}", "(((?:){1000}){1000}){1000}[ab]*a[ab]{90}", "(" * 30_000, "[" * 30_000,
        "()" * 9_000 + "[ab]*a[ab]{90}", "(?:" * 50 + "a*" + ")*" * 50 + "[ab]*a[ab]{90}", "(?:(?:a?){50}){50}[ab]*",
        f"[{''.join(chr(0x100 + 2 * place) for place in range(9_000))}]{{900}}*", "[ab]*a[ab]{90}" + "c{1000}" * 30_000,
    ],
)  # fmt: skip
def test_looking_at_a_pattern_is_quick(pattern: str) -> None:
    patterns, begin = Patterns(), time.thread_time()

    assert may_be_slow_patterns([pattern])
    assert patterns.places(pattern, "regexp_extract", "i") > FREE
    assert patterns.reads_again(pattern, "i", if_unknown=True)

    assert time.thread_time() - begin < 1


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[DuckDBDataStore]:
    with duckdb.connect(str(tmp_path / "f.duckdb")) as connection:
        connection.execute(
            "CREATE TABLE t AS SELECT i AS id, 'n' || i AS name, repeat('ab' || i, 3000) AS story FROM range(9) r(i)"
        )
    store = DuckDBDataStore(DuckDBOptions(tmp_path / "f.duckdb"))
    await store.open()
    yield store
    await store.close()


async def _code(store: DuckDBDataStore, query: str) -> str | None:
    try:
        await store.plan(SourceSpec(query=query), lo=None, limit=None)
    except PlatformError as error:
        return error.code
    return None


async def test_source_queries_have_them_for_short_texts(store: DuckDBDataStore) -> None:
    for call in ("id from t where regexp_full_match({}, '{}')", "regexp_replace({}, '{}', 'x') as r from t"):
        assert await _code(store, "select " + call.format("story", WORST)) == "query.too_large"
        assert await _code(store, "select " + call.format("name", WORST)) is None
    assert await _code(store, f"select id from t where regexp_full_match(left(story, 40), '{WORST}')") is None
    for pattern in EVERYDAY[0], EVERYDAY[9]:
        assert await _code(store, f"select id from t where regexp_matches(story, '{_written(pattern)}')") is None, (
            pattern
        )
    for pattern, expected in ((READING_AGAIN[0], "query.too_large"), (READING_ONCE[0], None)):
        assert await _code(store, f"select regexp_extract_all(story, '{pattern}') as r from t") == expected
    assert await _code(store, f"select regexp_extract_all(name, '{READING_AGAIN[0]}') as r from t") is None
    assert await _code(store, f"select id from t where story like '%{'a_' * 1_000}b%'") == "query.too_large"
    assert await _code(store, "select id from t where story like '%' || name || '%'") is None


@pytest.fixture
def bench() -> Iterator[Bench]:
    with one_bench() as bench:
        yield bench


async def test_rules_with_them_run_where_they_can_be_ended(bench: Bench) -> None:
    rows = pa.table({"v": ["1", "ab" * 600, "word"]})
    hooks = PythonHooks(folder=None)
    inner = DuckDBTransformer(hooks=hooks)
    transformer = BenchTransformer(inner, StepPlanner(bench), bench, hooks, threads=1, keeps_own=True)
    for pattern, is_slow in (("[a-z]{4,}", False), (f"w.*|{WORST}", True)):
        async with transformer.prepare(_plan(pattern)) as transform:
            assert isinstance(transform, BenchTransform) is is_slow
            judged = await transform.apply(rows)
        assert judged.counts.quarantined == 1
    with pytest.raises(InvalidInputError) as wrong:
        async with transformer.prepare(_plan("a**")) as transform:
            await transform.apply(rows)
    with pytest.raises(InvalidInputError) as same:
        async with inner.prepare(_plan("a**")) as transform:
            await transform.apply(rows)
    assert (wrong.value.code, wrong.value.message) == (same.value.code, same.value.message)
