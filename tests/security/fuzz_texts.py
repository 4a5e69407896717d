"""Texts to try a guard with: by a grammar, by change and splicing of the corpus and of ordinary queries."""

import random
import re
from collections.abc import Callable

from tests.security.payloads import of

_TOKEN = re.compile(r"\s+|\w+|'[^']*'|\"[^\"]*\"|\$\w*\$|::|--|/\*|\*/|.", re.DOTALL)
_ODD = (
    *"\u0085\u00a0\u1680\u180e\u2000\u200b\u200d\u2028\u2029\u202e\u202f\u205f\u2060\u3000\ufeff\u00ad\u0130\u0131\uff1b",
    *"\x01\x0b\x0c\x0d\x1c\x1f\x7f\t\n\\`#@?:;$%^&|~!{}[]()<>=,.'\"",
    *(
        "$a$",
        "$$",
        "$é$",
        "--",
        "/*",
        "*/",
        "\r\n",
        "''",
        '""',
        "::",
        ":=",
        "=>",
        "->",
        "->>",
        "..",
        "|>",
        "{{",
        "}}",
        "#1",
        "$1",
        ":n",
    ),
    *(
        "E'",
        "N'",
        "U&'",
        'U&"',
        "B'",
        "X'",
        "e'\\''",
        "n'a'",
        "U&\"\\0061\" uescape '!'",
        "1e",
        "0x",
        "1_0",
        "1.",
        ".5",
        "1e5",
    ),
)
_WORDS = {
    "postgres": (
        "only", "lateral", "with ordinality", "for update", "into x", "tablesample system (1)", "collate \"C\"",
        "collate canary", "operator(public.+)", "operator(pg_catalog.+)", "::regclass", "::canary_domain", "::mood",
        "returning *", "window w as ()", "filter (where true)", "over ()", "within group (order by 1)", "variadic",
        "rows from", "grouping sets ((1))", "union all", "except", "intersect", "is document", "at time zone 'UTC'",
        "is normalized", "similar to", "@#@", "##", "=@=", "is json", "limit 1", "offset 1", "fetch first row only",
    ),
    "duckdb": (
        "exclude (id)", "replace (1 as id)", "columns(*)", "qualify true", "using sample 1", "tablesample 1%", "pivot", "unpivot",
        "describe", "summarize", "show", "positional join", "asof join", "semi join", "union by name", "group by all",
        "order by all", "lambda x:", "x ->", "map {1: 2}", "{'a': 1}", "[1, 2]", "[x for x in [1]]", "at (version => 1)",
        "over ()", "filter (true)", "try_cast", "a:", "limit 1", "#1", "collate nocase", "materialized", "using key (a)",
    ),
}  # fmt: skip
_ORDINARY = {
    "postgres": (
        "select id, name from orders where at > '2024-01-01' order by id desc limit 10",
        "select o.id, count(*) as n from orders o join shop.items i on i.id = o.id group by o.id having count(*) > 1",
        "with recent as (select * from orders where id > 1) select lower(name), id + 1 from recent",
        "select case when id = 1 then 'a' else name end as x, coalesce(name, '') || '!' from seen",
        "select sum(id) over (partition by name order by at rows between 1 preceding and current row) from orders",
        "select id::text, cast(name as varchar(10)), extract(year from at), date_trunc('day', at) from orders",
        "select jsonb_build_object('a', id) -> 'a', (array[1, 2])[1], row(1, 2) from orders",
        "select distinct on (name) name, id from orders union all select name, id from seen",
        "select * from generate_series(1, 3) g(x), lateral (select x + 1 as y) l where x in (1, 2) and y between 1 " "and 5",
        "select substring(name from 1 for 2), trim(both 'x' from name), position('a' in name) from orders",
        "select o from orders o where exists (select from shop.items where title like 'a%' escape '!')",
        "select array_agg(name order by id) filter (where id > 0), string_agg(name, ',') from orders",
        "table orders", "values (1, 'a'), (2, 'b')", "select",
        "select * from json_table('[1]'::jsonb, '$[*]' columns (a int path '$')) j",
        "select xmlelement(name a, name) from orders", "select (o.*) is null, o.name from orders o tablesample system (100)",
        "select 1 operator(pg_catalog.+) 2, 'a' collate \"C\" < 'b', interval '1 day' * 2, now() at time zone 'UTC'",
    ),
    "duckdb": (
        "select id, name from orders where made > '2024-01-01' order by id desc limit 10",
        "from orders select id, upper(name) as n where id in (1, 2) and name like 'A%'",
        "with recent as (from orders where id > 1) select lower(name), id + 1 from recent",
        "select * exclude (made) replace (id + 1 as id) from orders",
        "select sum(id) over (partition by name order by made rows between 1 preceding and current row) from orders",
        "select {'a': id, 'b': [name]} as s, [1, 2][1:1], map {'x': 1}['x'] from orders",
        "select list_transform([1, 2], x -> x + 1), [y * 2 for y in [1, 2] if y > 1] from orders",
        "select name, count(*) filter (id > 0) as n from orders group by all having n > 0 order by all",
        "select id::varchar, try_cast(name as int), extract(year from made), date_trunc('day', made) from orders",
        "select * from orders o semi join victim v using (id) union by name select 1 as id",
        "from range(3) t(x), lateral (select x + 1 as y) where x between 1 and 5",
        "select a: id, b: name from orders qualify row_number() over (order by id) = 1",
        "table orders", "values (1, 'a'), (2, 'b')", "from orders",
        "select coalesce(name, '') || '!', case id when 1 then 'a' end, name.upper(), if(true, 1, 2) from orders",
    ),
    "transform": (
        "select * from batch", "select *, upper(name) as n from batch where id > 2",
        "select * replace (id + 1 as id) from batch", "select id, name, {'a': [v]} as s from batch",
        "select id, case when v > 1 then name end as x, coalesce(name, '') || '!' as y from batch",
        "select *, list_transform([id, 2], x -> x + id) as l, [y for y in [id] if y > 1] as m from batch",
        "select * exclude (v), try_cast(name as int) as n, v::varchar as t from batch where name like '%a%' or v is " "null",
        "select b.id, b.name.upper() as n, substring(name, 1, 2) as s from batch b", "select id, greatest(id, v) as g from batch",
    ),
}  # fmt: skip
_CALLS = {
    "postgres": (
        "canary(1)", "canary()", "shop.canary(1)", "public.lower(name)", "lower(1)", "summed(id)", "pg_read_file('/etc/passwd')",
        "nextval('canary_seq')", "pg_advisory_lock(7)", "query_to_xml('select canary()', true, true, '')", "lower(name)",
        "set_config('a.b', 'c', false)", "o.canary", "(o).canary", "(1).canary", "'1'::canary_domain", "1 + 2", "'a' = 'a'",
        "'a'::mood + 1", "name collate canary", "count(*)", "coalesce(name, 'x')", "row_to_json(o)", "o.row_to_json", "lo_creat(1)",
        "current_setting('x', true)", "xpath('/a', '<a/>')", "to_regproc('canary')", "1 operator(public.+) 2", "1 ## 2",
        "json_populate_record(null::orders, '{}')", "unnest(array[1])", "pg_typeof(o)", "overlay('a' placing 'b' from 1)",
        "m", "p", "s", "m + 1", "to_json(o)", "null::guarded", "row(1, 'a')::guarded",
        "json_populate_record(null::guarded, '{\"id\": 1}')", "array[p]", "o = o", "row(o)", "(select canary(1))",
        "array(select canary(1))", "pg_stat_file('/etc/passwd')", "ts_stat('select canary()::tsvector')",
    ),
    "duckdb": (
        "canary(1)", "main.canary(1)", "getenv('HOME')", "read_text('/etc/passwd')", "nextval('canary_seq')", "range(3)",
        "list_transform([1], x -> canary(x))", "current_setting('threads')", "upper(name)", "name.upper()", "'HOME'.getenv()",
        "list_aggregate([1], 'sum')", "query('select 1')", "query_table('victim')", "(from victim)", "array(from victim)",
        "glob('*')", "columns(*)", "unnest([1])", "repeat('x', 10)", "struct_pack(a := 1)", "count(*)", "sum(id)", "1 + 2",
        "(from '/etc/passwd')", "try(1)", "sql_auto_complete('s')", "which_secret('a', 'b')", "getvariable('x')",
    ),
}  # fmt: skip
_CALLS["transform"] = (
    *(
        "random()",
        "now()",
        "id",
        "v",
        "name",
        "upper(name)",
        "id + v",
        "row_number() over ()",
        "sum(id)",
        "count(*)",
        "lag(id) over ()",
    ),
    *(
        "(select max(id) from batch)",
        "list_transform([1], x -> random())",
        "id.sum()",
        "current_setting('threads')",
        "uuid()",
    ),
    *(
        "nextval('s')",
        "unnest([id])",
        "columns(*)",
        "rowid",
        "[random() for x in [1]]",
        "list(id)",
        "main.random()",
        "first(id)",
    ),
    *(
        "try(random())",
        "{'a': random()}",
        "hash(id)",
        "generate_subscripts([1], 1)",
        "in_search_path('a', 'b')",
        "txid_current()",
    ),
)
_WORDS["transform"] = _WORDS["duckdb"]
ENGINES = ("postgres", "duckdb", "transform")
_ALIASES = (
    "x",
    '"a b"',
    "$a$b$a$",
    "N'x'",
    "E'x'",
    "'x'",
    "a$b",
    "é",
    "a\u2028$a$",
    '"x, canary(1)"',
    'U&"\\0061"',
    "x$$",
)


class Texts:
    """The n-th text of a seed is always the same, for the same corpus."""

    def __init__(self, engine: str, seed: int) -> None:
        self._engine = engine
        self._seed = seed
        places = ("transform",) if engine == "transform" else ("query",)
        found = of(*places) if engine == "transform" else of(*places, engine=engine)
        # What runs without end is tried by tests that have a deadline for it.
        self._corpus = [p.text for p in found if len(p.text) < 2_000 and not p.is_bounded]
        self._ways: tuple[Callable[[random.Random], str], ...] = (
            self._grammatical, self._grammatical, self._changed, self._changed, self._spliced, self._ordinary, self._long,
        )  # fmt: skip

    def text(self, number: int) -> str:
        draw = random.Random(f"{self._engine}/{self._seed}/{number}")
        text = draw.choice(self._ways)(draw)
        for _ in range(draw.choice((0, 0, 1, 1, 2, 4))):
            text = self._change(draw, text)
        return text

    def _base(self, draw: random.Random) -> str:
        return draw.choice(draw.choice((self._corpus, _ORDINARY[self._engine])))

    def _ordinary(self, draw: random.Random) -> str:
        return draw.choice(_ORDINARY[self._engine])

    def _changed(self, draw: random.Random) -> str:
        return self._change(draw, self._base(draw))

    def _spliced(self, draw: random.Random) -> str:
        one, other = (_TOKEN.findall(self._base(draw)) for _ in range(2))
        start = draw.randrange(len(other) + 1)
        place = draw.randrange(len(one) + 1)
        taken = other[start : start + draw.randint(1, 12)]
        return "".join(one[:place] + taken + one[place + draw.choice((0, 0, len(taken))) :])

    def _long(self, draw: random.Random) -> str:
        """A part of a text again and again, near the bounds of length and depth."""
        tokens = _TOKEN.findall(self._base(draw)) or [" "]
        start = draw.randrange(len(tokens))
        part = "".join(tokens[start : start + draw.randint(1, 5)])
        times = min(draw.choice((3, 30, 90, 110, 300, 3_000)), 33_000 // max(len(part), 1))
        return "".join(tokens[:start]) + part * times + "".join(tokens[start:])

    def _change(self, draw: random.Random, text: str) -> str:
        tokens = _TOKEN.findall(text) or [""]
        place = draw.randrange(len(tokens))
        token = tokens[place]
        kind = draw.randrange(9)
        if kind == 0:
            tokens.insert(place, draw.choice(_ODD))
        elif kind == 1:
            tokens[place] = draw.choice(_CALLS[self._engine])
        elif kind == 2:
            del tokens[place : place + draw.randint(1, 3)]
        elif kind == 3:
            tokens.insert(place, token)
        elif kind == 4:
            quoted = (
                '"{}"',
                "'{}'",
                "$a${}$a$",
                "({})",
                "[{}]",
                "N'{}'",
                "E'{}'",
                "/*{}*/",
                "{}.{}",
                "({}).{}",
                "{}()",
                "{{{}}}",
                "{}::{}",
            )
            tokens[place] = draw.choice(quoted).replace("{}", token or "x")
        elif kind == 5:
            tokens.insert(place, f" {draw.choice(_WORDS[self._engine])} ")
        elif kind == 6:
            tokens[place] = draw.choice(
                (token.upper(), token.title(), token[::-1], token + draw.choice(_ODD), token[:-1])
            )
        elif kind == 7:
            tokens = [char if char.strip() else draw.choice((char, *_ODD[:26])) for char in tokens]
        else:
            other = draw.randrange(len(tokens))
            tokens[place], tokens[other] = tokens[other], tokens[place]
        return "".join(tokens)

    def _grammatical(self, draw: random.Random) -> str:
        if self._engine == "transform":
            items = ", ".join(f"{self._expression(draw, 3)} as c{n}" for n in range(draw.randint(1, 3)))
            where = f" where {self._expression(draw, 2)} is not null" if draw.random() < 0.4 else ""
            return f"select {draw.choice(('*, ', 'id, ', ''))}{items} from batch{where}"
        return self._select(draw, 3)

    def _select(self, draw: random.Random, depth: int) -> str:
        items = ", ".join(
            self._expression(draw, depth) + (f" as {draw.choice(_ALIASES)}" if draw.random() < 0.3 else "")
            for _ in range(draw.randint(1, 3))
        )
        text = f"select {items}"
        relations = [
            "orders o",
            "seen",
            "shop.items",
            "victim",
            "orders",
            "(values (1)) v(id)",
            "generate_series(1, 2) g",
        ]
        if depth > 0:
            relations += [f"({self._select(draw, depth - 1)}) s", f"lateral ({self._select(draw, depth - 1)}) l"]
            relations += [
                draw.choice(_CALLS[self._engine]),
                "_headrace_checkpoint",
                "pg_class",
                '"orders"',
                "public.orders",
            ]
        if draw.random() < 0.8:
            joined = draw.choice((", ", " cross join ", " natural join "))
            text += " from " + joined.join(draw.choice(relations) for _ in range(draw.randint(1, 2)))
        for word in (" where {} is not null", " group by {}", " having {} is null", " order by {}", " limit 3"):
            if draw.random() < 0.2:
                text += word.format(self._expression(draw, depth - 1))
        if depth > 0 and draw.random() < 0.15:
            text += draw.choice((" union all ", " except ", " intersect ")) + self._select(draw, depth - 1)
        if depth > 0 and draw.random() < 0.15:
            name = draw.choice(("w", "orders", "pg_class", '"W"', "victim"))
            text = f"with {name} as ({self._select(draw, depth - 1)}) {text}"
        return text

    def _expression(self, draw: random.Random, depth: int) -> str:
        atoms = (
            "id",
            "name",
            "o.id",
            "1",
            "'a'",
            "null",
            "true",
            "$a$b$a$",
            "1.5",
            "array[1]",
            "o",
            "*",
            "E'\\n'",
            "-1",
        )
        if depth <= 0 or draw.random() < 0.25:
            return draw.choice(("id", "name", "v", "1", "'a'", "null") if self._engine == "transform" else atoms)
        if draw.random() < 0.35:
            return draw.choice(_CALLS[self._engine])
        inner = [self._expression(draw, depth - 1) for _ in range(2)]
        shape = draw.choice(
            (
                "({0})", "{0} + {1}", "{0} || {1}", "{0} = {1}", "coalesce({0}, {1})", "case when {0} is null then {1} end",
                "cast({0} as text)", "{0}::int", "not {0}", "({0}, {1})", "{0} in ({1})", "{0} between {1} and 2", "lower({0})",
                "array[{0}, {1}]", "({0}).x", "{0}[1]", "{0} is distinct from {1}", "abs({0})", "{0} like {1}", "nullif({0}, {1})",
                "greatest({0}, {1})", "{0} and {1}", "concat({0}, {1})", "{0} -> {1}", "count({0})", "exists (select {0})",
            )
        )  # fmt: skip
        return shape.format(*inner)
