"""The SQL of a run of steps: one stage for each, over the batch that is registered as `_headrace_source`."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import duckdb

from domain.errors import InvalidInputError
from domain.loads.way import WIDE
from domain.pipelines.steps import CastStep, DropStep, RenameStep, SqlStep
from domain.ports.data_store import Conversion, Conversions
from domain.ports.transformer import TransformPlan
from domain.stores.table import INTERNAL_PREFIX, ORDINAL, Column
from infrastructure.queries.duckdb_doubled import refuse_doubled
from infrastructure.queries.duckdb_queries import IN_PROCESS
from infrastructure.queries.duckdb_steps import not_row_wise
from infrastructure.sql import quote
from infrastructure.tabular.duckdb_types import logical_of
from infrastructure.tabular.exact import NOT_CONVERTED, exact, is_plain_number
from infrastructure.tabular.nested_types import is_text_on_the_way
from infrastructure.tabular.numbers_in_text import is_number_in_text
from infrastructure.transforms.conversions import catalog_type, conversion, is_nested, nested_from_text, sql_type

Pair = tuple[str, str, str]
"""A column's name, its type, and the type that it is to have."""
FAILED = "_headrace_failed"
SOURCE = "_headrace_source"
# Which zone a time without one belongs to is for the user to say.
_OTHER_MOMENTS = ({"timestamp", "timestamptz"}, {"date", "timestamptz"})


class Stages:
    """Builds the stages one by one and knows the columns after each.

    A row that does not convert carries the name of the column in `_headrace_failed`; it passes by SQL steps, which see
    only sound rows.
    """

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        columns: tuple[Column, ...],
        *,
        arrives_as_text: bool,
        guessed: Sequence[str] = (),
        is_converted: bool = False,
    ) -> None:
        self._connection = connection
        self._parts: list[str] = []
        self._passed_by: list[str] = []
        self._conversions = 0
        self.columns = columns
        if is_converted:
            self._push(f"SELECT * FROM {SOURCE}")
        elif arrives_as_text:
            pairs = [(column.name, "string", column.type) for column in columns]
            self._conversions = len(changed(pairs))
            self._push(converted(SOURCE, pairs, earlier="", exactly=guessed))
        else:
            self._push(f"SELECT *, NULL::VARCHAR AS {FAILED} FROM {SOURCE}")

    @property
    def last(self) -> str:
        """The name of the last stage."""
        return f"s{len(self._parts) - 1}"

    @property
    def text(self) -> str:
        """All stages as common table expressions."""
        return f"WITH {', '.join(self._parts)}"

    @property
    def failures(self) -> str | None:
        """A query for (ordinal, column) of the rows that passed by an SQL step."""
        parts = [f"SELECT {ORDINAL}, {FAILED} FROM {stage} WHERE {FAILED} IS NOT NULL" for stage in self._passed_by]
        return f"{self.text} {' UNION ALL '.join(parts)}" if parts else None

    def add(self, step: SqlStep | RenameStep | DropStep) -> None:
        """Append a step.

        Raises:
            InvalidInputError: it names a column that is not there, or is not row-wise.
        """
        match step:
            case SqlStep():
                read = IN_PROCESS.step(step.sql)
                if read.row_name in read.columns and not self._has(read.row_name):
                    raise not_row_wise(f"{read.row_name}, which is the whole row and its place in the batch,")
                self._passed_by.append(self.last)
                batch = f"batch AS (SELECT * EXCLUDE ({FAILED}) FROM {self.last} WHERE {FAILED} IS NULL)"
                texts = self._describe(f"{self.text}, {batch}\n{read.text}", read.carried(self.columns))
                self._push(f"SELECT *, NULL::VARCHAR AS {FAILED} FROM (WITH {batch}\n{read.text}\n) AS stepped")
                if texts:
                    self._select(
                        lambda name: (
                            f"CAST({quote(name)} AS VARCHAR) AS {quote(name)}" if name in texts else quote(name)
                        )
                    )
            case RenameStep():
                self._require(step.columns, "rename")
                self.columns = tuple(Column(step.columns.get(c.name, c.name), c.type) for c in self.columns)
                if len({column.name.lower() for column in self.columns}) < len(self.columns):
                    raise InvalidInputError("A rename gives two columns one name.", code="transform.invalid")
                back = {new: old for old, new in step.columns.items()}
                self._select(lambda name: f"{quote(back.get(name, name))} AS {quote(name)}")
            case DropStep():
                self._require(step.columns, "drop")
                self.columns = tuple(column for column in self.columns if column.name not in step.columns)
                if not self.columns:
                    raise InvalidInputError("A drop leaves no column.", code="transform.invalid")
                self._select(quote)

    def cast(self, step: CastStep) -> list[Pair]:
        """What a cast converts.

        Raises:
            InvalidInputError: it names a column that is not there.
        """
        self._require(step.types, "cast")
        return [(c.name, c.type, step.types.get(c.name, c.type)) for c in self.columns]

    def has_room_for(self, pairs: Sequence[Pair]) -> bool:
        """Whether these conversions and those before are few enough for one statement."""
        return not (count := len(changed(pairs))) or self._conversions + count <= WIDE

    def convert(self, pairs: Sequence[Pair], *, exactly: Collection[str] = ()) -> None:
        """Convert columns, without loss or not at all; those to be converted `exactly` a text only where its value
        stays the very one that was written.
        """
        self._conversions += len(changed(pairs))
        self.columns = tuple(Column(name, wanted) for name, _, wanted in pairs)
        self._push(converted(self.last, pairs, earlier=FAILED, exactly=exactly))

    def _push(self, sql: str) -> None:
        self._parts.append(f"s{len(self._parts)} AS ({sql})")

    def _select(self, output: Callable[[str], str]) -> None:
        outputs = ", ".join(output(column.name) for column in self.columns)
        self._push(f"SELECT {outputs}, {quote(ORDINAL)}, {FAILED} FROM {self.last}")

    def _has(self, name: str) -> bool:
        return any(column.name.lower() == name for column in self.columns)

    def _require(self, names: Iterable[str], what: str) -> None:
        known = {column.name for column in self.columns}
        for name in names:
            if name not in known:
                raise InvalidInputError(
                    f"The {what} names {name}, which is not there; the columns are {', '.join(sorted(known))}.",
                    code="transform.column_missing",
                )

    def _describe(self, step: str, carried: Mapping[str, Column]) -> set[str]:
        """Take the columns of a step, and give those of them that travel as text: what it passes on as it came stays
        what it is, the rest is new.

        The step is asked by itself: within another, DuckDB gives the second of two columns of one name another.
        """
        found = self._connection.execute(f"DESCRIBE {step}").fetchall()
        described = [(name, native) for name, native, *_ in found if name != ORDINAL]
        refuse_doubled([name for name, _ in described], code="transform.invalid")
        columns: list[Column] = []
        texts: set[str] = set()
        for name, native in described:
            before = carried.get(name.lower())
            kind = before.type if before is not None else logical_of(native)
            if before is None and (is_text_on_the_way(kind) or native.startswith("ENUM(")):
                texts.add(name)
            columns.append(Column(name, kind))
        self.columns = tuple(columns)
        return texts


def texts_among(columns: Sequence[Column]) -> str:
    """Say which columns are text in a step although they are more in the store; nothing where there is none."""
    names = [column.name for column in columns if is_text_on_the_way(column.type)]
    return (
        f" In steps {', '.join(names[:5])} {'is' if len(names) == 1 else 'are'} text: cast what you compare."
        if names
        else ""
    )


def check_names(columns: Sequence[Column]) -> None:
    """Refuse columns that SQL cannot tell apart, which DuckDB would give other names.

    Raises:
        InvalidInputError: two names are equal, letter case aside (`columns.collision`).
    """
    seen: dict[str, str] = {}
    for column in columns:
        other = seen.get(column.name.lower())
        seen[column.name.lower()] = column.name
        if other is not None:
            raise InvalidInputError(
                f"The columns {other} and {column.name} differ in nothing but letter case; give one another name: in "
                'the header of a file, or in a query of the source, such as: select "Id" as outer_id, …',
                code="columns.collision",
            )


def changed(pairs: Sequence[Pair]) -> list[Pair]:
    """The columns of which something is made, and that do not go on as they are."""
    return [
        (name, given, wanted)
        for name, given, wanted in pairs
        if not (given == wanted or (sql_type(given) == sql_type(wanted) == "VARCHAR" and wanted == "string"))
    ]


def converted(source: str, pairs: Sequence[Pair], *, earlier: str, exactly: Collection[str] = ()) -> str:
    """Convert columns; the first that does not convert names the row's failure, unless an `earlier` stage did."""
    inputs, outputs, failures = list[str](), [quote(ORDINAL)], list[str]()
    made = frozenset(changed(pairs))
    for number, (name, given, wanted) in enumerate(pairs):
        column = quote(name)
        if (name, given, wanted) not in made:
            outputs.append(column)
            continue
        if name in exactly and {given, wanted} in _OTHER_MOMENTS:
            result = f"CAST(NULL AS {sql_type(wanted)})"
        else:
            result = _read(column, given, wanted, is_exact=given == "string" and name in exactly)
        # Beside the column itself, so that it is worked out once and not for the failure again.
        inputs.append(f"{result} AS {INTERNAL_PREFIX}_{number}")
        outputs.append(f"{INTERNAL_PREFIX}_{number} AS {column}")
        failures.append(f"WHEN {column} IS NOT NULL AND {INTERNAL_PREFIX}_{number} IS NULL THEN {_literal(name)}")
    failed = f"CASE {' '.join(failures)} END" if failures else "NULL::VARCHAR"
    failed = f"coalesce({earlier}, {failed})" if earlier else failed
    both = f"(SELECT *, {', '.join(inputs)} FROM {source})" if inputs else source
    return f"SELECT {', '.join(outputs)}, {failed} AS {FAILED} FROM {both}"


def conversions_of(plan: TransformPlan) -> Conversions:
    """Say how a destination that speaks DuckDB's SQL converts the text of a plan that `only_converts`."""
    given = [column.name for column in plan.source]
    columns = [
        Conversion(landing, catalog_type(kind), name, converting(name, kind, is_guess=name in plan.guessed))
        for landing, name, kind in zip(plan.landing_names(given), given, (c.type for c in plan.source), strict=True)
    ]
    return Conversions("duckdb", tuple(columns))


def converting(name: str, kind: str, *, is_guess: bool) -> str:
    """Return SQL that converts a text column as the first stage does, and is an error where it would name a failure."""
    column = quote(name)
    if sql_type(kind) == "VARCHAR" and kind == "string":
        return column
    fails = f"CASE WHEN {column} IS NOT NULL THEN error({_literal(NOT_CONVERTED)}) END"
    is_exact = is_guess and not is_number_in_text(kind)
    strict = exact(column, kind, otherwise=fails) if is_exact else None
    return strict or f"coalesce({_read(column, 'string', kind, is_exact=is_guess)}, {fails})"


def _read(column: str, given: str, wanted: str, *, is_exact: bool) -> str:
    if is_exact and is_nested(wanted):
        return nested_from_text(column, wanted, lambda item, kind: _read(item, given, kind, is_exact=True))
    result = (exact(column, wanted) if is_exact else None) or conversion(column, given, wanted)
    return (
        f"CASE WHEN {is_plain_number(column)} THEN {result} END" if is_exact and is_number_in_text(wanted) else result
    )


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
