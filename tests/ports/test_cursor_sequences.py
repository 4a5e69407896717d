"""Rows whose number a sequence of Postgres has not given yet: their time comes, unless somebody else numbers them."""

from collections.abc import Iterator
from dataclasses import replace
from urllib.parse import urlsplit

import pytest

from domain.errors import InvalidInputError
from domain.pipelines.spec import CursorSpec, SourceSpec
from infrastructure.stores.postgres.store import PostgresDataStore
from tests.ports.backends import address_of
from tests.ports.cursor_reading import Reading
from tests.somebody import Somebody, somebody_in

BY_ID = CursorSpec("id")
STRICT = CursorSpec("id", is_strict=True)
TEN = "INSERT INTO {t} (note) SELECT 'ordinary' FROM generate_series(1, 10)"
BY_HAND = "INSERT INTO {t} (id) OVERRIDING SYSTEM VALUE VALUES ({id})"
KINDS = {
    "serial": "CREATE TABLE {t} (id bigserial PRIMARY KEY, note text)",
    "identity": "CREATE TABLE {t} (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, note text)",
    "default": (
        'CREATE SEQUENCE "of \'{t}" AS int; '
        "CREATE TABLE {t} (id int PRIMARY KEY DEFAULT nextval('\"of ''{t}\"'), note text)"
    ),
    "parts": (
        "CREATE TABLE {t} (id bigserial PRIMARY KEY, note text) PARTITION BY RANGE (id); "
        "CREATE TABLE {t}_low PARTITION OF {t} FOR VALUES FROM (1) TO (15); CREATE TABLE {t}_rest PARTITION OF {t} DEFAULT"
    ),
}


def made(somebody: Somebody, kind: str = "serial") -> None:
    """Make a table of whose rows the sequence has counted ten."""
    somebody.does(f"{KINDS[kind].format(t='s')};{TEN.format(t='s')}")


@pytest.fixture
def plain_url(postgres_database: str, somebody: Somebody) -> Iterator[str]:
    """The same database for a role that may read tables and no sequence."""
    name = f"plain_{urlsplit(postgres_database).path.lstrip('/')}"
    somebody.does(f"CREATE ROLE {name} LOGIN; ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO {name}")
    yield postgres_database.replace("postgres@", f"{name}@")
    somebody.does(f"DROP OWNED BY {name}; DROP ROLE {name}")


@pytest.mark.clause("IDataStore", 30)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("what", ["table", "query"])
async def test_a_row_above_its_sequence_takes_no_later_row_away(
    kind: str, what: str, postgres: PostgresDataStore, somebody: Somebody
) -> None:
    made(somebody, kind)
    somebody.does(BY_HAND.format(t="s", id=1_000_000))
    reading = Reading(postgres, "s", STRICT)
    if what == "query":
        reading.source = SourceSpec(query="SELECT note, id FROM s", cursor=STRICT, key=("id",))

    assert await reading.goes_on() == list(range(1, 11))
    [told] = reading.end.sentences
    assert reading.end.held_back == (told,)
    assert "up to 1000000, above 10," in told

    somebody.does(TEN.format(t="s"))
    assert await reading.goes_on() == list(range(11, 21))
    assert reading.watermark == "21"

    somebody.does("SELECT setval(oid, 1000000) FROM pg_class WHERE relkind = 'S'")
    assert await reading.goes_on() == [1_000_000]
    assert reading.end.sentences == ()
    somebody.does(TEN.format(t="s"))
    assert await reading.goes_on() == list(range(1_000_001, 1_000_011))


@pytest.mark.clause("IDataStore", 30)
async def test_a_row_above_its_sequence_comes_after_a_transaction_that_is_open(
    postgres: PostgresDataStore, somebody: Somebody, postgres_database: str
) -> None:
    """The lane's last read had gone to the row by hand; read again, it does not take its place for a true one."""
    made(somebody)
    reading = Reading(postgres, "s", replace(BY_ID, patience=None))
    somebody.does("ALTER TABLE s ALTER id DROP DEFAULT; ALTER SEQUENCE s_id_seq OWNED BY NONE")
    somebody.does(BY_HAND.format(t="s", id=1_000_000))
    assert len(await reading.goes_on()) == 11
    somebody.does("ALTER TABLE s ALTER id SET DEFAULT nextval('s_id_seq')")
    reading.watermark = "1"

    with somebody_in(postgres_database) as late:
        late.does("BEGIN; INSERT INTO s (note) VALUES ('late')")
        somebody.does("INSERT INTO s (note) VALUES ('early')")
        assert 12 not in await reading.goes_on()
        late.does("COMMIT")

    assert {11, 12} <= {*await reading.goes_on()}
    assert reading.watermark == "13"


@pytest.mark.clause("IDataStore", 30)
async def test_a_lane_that_has_followed_a_sequence_needs_no_rows_below(
    postgres: PostgresDataStore, somebody: Somebody
) -> None:
    made(somebody)
    reading = Reading(postgres, "s", BY_ID)
    assert len(await reading.goes_on()) == 10

    somebody.does(f"DELETE FROM s;{BY_HAND.format(t='s', id=1_000_000)};{BY_HAND.format(t='s', id=2_000_000)}")
    assert await reading.goes_on() == []
    assert "up to 2000000" in reading.end.held_back[0]
    somebody.does(TEN.format(t="s"))

    assert await reading.goes_on() == list(range(11, 21))


NOBODY_ASKS = {
    "never advanced": "INSERT INTO s SELECT generate_series(1, 30)",
    "counts to its end": "INSERT INTO s (note) VALUES ('one'), ('two'); ALTER SEQUENCE s_id_seq MAXVALUE 2; "
    "INSERT INTO s VALUES (1000)",
    "begins again": "ALTER SEQUENCE s_id_seq CYCLE; INSERT INTO s (note) VALUES ('one'); INSERT INTO s VALUES (1000)",
    "is multiplied": "ALTER TABLE s ALTER id SET DEFAULT nextval('s_id_seq') * 50; "
    "INSERT INTO s (note) VALUES ('one'); INSERT INTO s VALUES (1000)",
    "is left over": "INSERT INTO s (note) VALUES ('one'); INSERT INTO s VALUES (1000); ALTER TABLE s ALTER id DROP DEFAULT",
}


@pytest.mark.parametrize("kind", NOBODY_ASKS)
async def test_numbers_that_no_sequence_gives_are_read_without_a_word(
    kind: str, postgres: PostgresDataStore, somebody: Somebody
) -> None:
    somebody.does(f"{KINDS['serial'].format(t='s')};{NOBODY_ASKS[kind]}")
    reading = Reading(postgres, "s", STRICT)

    await reading.goes_on()

    assert sorted(reading.ids) == [number for (number,) in somebody.does("SELECT id FROM s ORDER BY id")]
    assert reading.end.sentences == ()


async def test_what_a_subscription_numbers_is_read(postgres: PostgresDataStore, somebody: Somebody) -> None:
    made(somebody)
    somebody.does("CREATE SUBSCRIPTION copied CONNECTION 'host=nowhere' PUBLICATION p WITH (connect = false)")
    try:
        somebody.does("INSERT INTO pg_subscription_rel SELECT oid, 's'::regclass, 'r' FROM pg_subscription")
        somebody.does(BY_HAND.format(t="s", id=1_000))
        reading = Reading(postgres, "s", BY_ID)

        assert len(await reading.goes_on()) == 11
        [told] = reading.end.sentences
        assert "filled by a subscription" in told
    finally:
        somebody.does("ALTER SUBSCRIPTION copied SET (slot_name = NONE); DROP SUBSCRIPTION copied")


# What was there when the sequence had counted ten, and what came later.
NUMBERED_BY_OTHERS = {
    "most are": ("", "INSERT INTO s SELECT 1000000 + 7 * i FROM generate_series(1, 40) AS i"),
    "goes on from there": ("", "INSERT INTO s SELECT 11 + i FROM generate_series(1, 20) AS i"),
    "hi and lo": ("DELETE FROM s; INSERT INTO s SELECT generate_series(1, 500)", "INSERT INTO s VALUES (501)"),
}


@pytest.mark.clause("IDataStore", 30)
@pytest.mark.parametrize("kind", NUMBERED_BY_OTHERS)
async def test_rows_that_others_number_are_read_and_what_a_sequence_may_still_give_is_told(
    kind: str, postgres: PostgresDataStore, somebody: Somebody
) -> None:
    made(somebody)
    before, later = NUMBERED_BY_OTHERS[kind]
    somebody.does(f"{before};{later}")
    reading = Reading(postgres, "s", BY_ID)

    await reading.goes_on()

    assert sorted(reading.ids) == [number for (number,) in somebody.does("SELECT id FROM s ORDER BY id")]
    [told] = reading.end.unknown
    assert "s_id_seq has given 10 at most" in told
    assert "setval" in told
    with pytest.raises(InvalidInputError) as refused:
        await Reading(postgres, "s", STRICT).goes_on()
    assert refused.value.code == "cursor.unknown"


@pytest.mark.clause("IDataStore", 30)
async def test_a_watermark_above_its_sequence_is_obeyed_and_told(
    postgres: PostgresDataStore, somebody: Somebody
) -> None:
    made(somebody)
    reading = Reading(postgres, "s", BY_ID)
    await reading.goes_on()
    somebody.does(
        f"TRUNCATE s RESTART IDENTITY;{TEN.format(t='s')};DELETE FROM s WHERE id > 5;SELECT setval('s_id_seq', 5)"
    )
    assert await reading.goes_on() == []
    assert "come to 10, and the sequence s_id_seq has given 5 at most" in reading.end.unknown[0]

    somebody.does(BY_HAND.format(t="s", id=1_000))
    reading.watermark = "900"  # As 'pipelines reset --to' does.
    assert await reading.goes_on() == [1_000]
    assert reading.end.held_back == ()


@pytest.mark.clause("IDataStore", 30)
async def test_a_role_that_may_not_see_a_sequence_says_what_to_grant(
    plain_url: str, postgres: PostgresDataStore, somebody: Somebody
) -> None:
    made(somebody)
    plain = PostgresDataStore(address_of(plain_url))
    await plain.open()
    try:
        reading = Reading(plain, "s", BY_ID)
        assert len(await reading.goes_on()) == 10
        [told] = reading.end.unknown
        assert "GRANT SELECT ON SEQUENCE s_id_seq" in told
        with pytest.raises(InvalidInputError) as refused:
            await Reading(plain, "s", STRICT).goes_on()
        assert refused.value.code == "cursor.unknown"

        somebody.does(f"GRANT SELECT ON SEQUENCE s_id_seq TO {urlsplit(plain_url).username}")
        somebody.does(BY_HAND.format(t="s", id=1_000_000))
        strict = Reading(plain, "s", STRICT)
        assert len(await strict.goes_on()) == 10
        assert strict.end.unknown == ()
    finally:
        await plain.close()
