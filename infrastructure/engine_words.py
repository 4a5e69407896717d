"""What an engine says of a statement, in our words: the names it is about, and never its own text, which may hold
values.

The engines quote what they stumble over, also constants and what they have evaluated. So a sentence is taken apart
where its form is known, names are all that is kept of it, and of other sentences nothing but what kind of failure it
is.
"""

import re

import duckdb

_Words = tuple[tuple[re.Pattern[str], str], ...]
_LONGEST_NAME = 100
# Names of our own within the SQL of steps.
_OF_OURS = re.compile(r"s[0-9]+|stepped|judged|_headrace\w*")


def _words(*pairs: tuple[str, str]) -> _Words:
    return tuple((re.compile(pattern), sentence) for pattern, sentence in pairs)


_DUCKDB = _words(
    (r'^Referenced column "(?P<a>[^"]+)" (?:was )?not found', "there is no column {a}"),
    (r'^Column "(?P<a>[^"]+)" in [A-Z]+ list not found', "there is no column {a}"),
    (
        r'^(?:Table|Values list) "(?P<b>[^"]+)" does not have a column (?:named|with name) "(?P<a>[^"]+)"',
        "there is no column {a} in {b}",
    ),
    (r'^Referenced table "(?P<a>[^"]+)" not found', "there is no table {a} in it"),
    (r'^Could not find key "(?P<a>[^"]+)" in struct', "there is no field {a} in the struct"),
    (r'^(?:Table|View) with name "?(?P<a>[^"\s]+?)"? does not exist', "the table or view {a} does not exist"),
    (r'^Schema with name "?(?P<a>[^"\s]+?)"? does not exist', "the schema {a} does not exist"),
    (r'^[\w ]*Function with name "?(?P<a>[^"\s]+?)"? does not exist', "there is no function {a}"),
    (r'^(?P<b>Type|Collation|Macro) with name "?(?P<a>[^"\s]+?)"? does not exist', "the {b} {a} does not exist"),
    (
        r"^No function matches the given name and argument types '(?P<a>[^']+)'",
        "no function or operator takes {a}; cast its arguments",
    ),
    (r'^Macro "(?P<a>[^"]+)"\(\) does not support', "the function {a} does not take these arguments"),
    (
        r'^Ambiguous reference to column name "(?P<a>[^"]+)"',
        "the column {a} is in several tables: write the name of its table before it",
    ),
    (r'^column "(?P<a>[^"]+)" must appear in the GROUP BY', "the column {a} is neither grouped by nor aggregated"),
    (
        r"^Cannot compare values of type (?P<a>[\w(), ]+) and type (?P<b>[\w(), ]+?) -",
        "values of type {a} and {b} are compared; cast one of them",
    ),
    (r'^syntax error at or near "(?P<a>[A-Za-z_]+)"', "its syntax is wrong at {a}"),
    (r"^syntax error at end of input", "it ends too early"),
    (r"^unterminated", "a quote in it is not closed"),
    (r'^(?P<b>Table|View|Column) with name "(?P<a>[^"]+)" already exists', "the {b} {a} exists already"),
    (r"^Set operations can only apply", "the parts of a set operation differ in the number of columns"),
    (r"^aggregate function calls cannot be nested", "an aggregate is within another one"),
    (r"^Window functions are not supported", "a window function stands where none can"),
    (r"^Subquery returns (?P<a>[0-9]+) columns", "a subquery gives {a} columns in the place of one"),
    (r"^UNNEST\(\) can only be applied", "unnest takes lists and structs only"),
    (r"^Values were not provided for the following parameters: (?P<a>\w+)", "the parameter {a} has no value"),
)
_BY_CLASS: tuple[tuple[type[duckdb.Error], str], ...] = (
    (duckdb.ParserException, "it cannot be parsed"),
    (duckdb.ConversionException, "a constant in it does not convert to the type that is wanted"),
    (duckdb.OutOfRangeException, "a constant in it is out of range"),
    (duckdb.CatalogException, "it names something that is not there"),
    (duckdb.BinderException, "its names, types or clauses do not go together"),
)


def said_by_duckdb(error: duckdb.Error) -> str:
    """Say why DuckDB does not take a statement, as the end of a sentence."""
    text = re.sub(r"^[A-Z][A-Za-z ]*?Error: ", "", str(error).strip())
    if isinstance(error, duckdb.CatalogException | duckdb.BinderException | duckdb.ParserException):
        found = _known(text, _DUCKDB)
        if found is not None:
            return found
    if words := _known(text, _DUCKDB[-1:]):
        return words
    return next((words for kind, words in _BY_CLASS if isinstance(error, kind)), "DuckDB refuses it")


_KINDS = (
    "materialized view|foreign table|partitioned table|publication|constraint|extension|tablespace|relation|sequence|"
    "database|function|trigger|language|operator|collation|schema|column|policy|domain|table|index|view|type|role|"
    "rule|user"
)
_POSTGRES = _words(
    (r'^column "(?P<a>[^"]+)" of relation "(?P<b>[^"]+)" does not exist', "there is no column {a} in {b}"),
    (r'^column "?(?P<a>[^"\s]+)"? does not exist', "there is no column {a}"),
    (r'^column "(?P<a>[^"]+)" does not exist', "there is no column {a}"),
    (r'^relation "(?P<a>[^"]+)" does not exist', "the table or view {a} does not exist"),
    (r"^function (?P<a>[\w.\" ]+\([\w ,.\[\]\"]*\)) does not exist", "there is no function {a}"),
    (rf'^(?P<b>{_KINDS}) "(?P<a>[^"]+)" does not exist', "the {b} {a} does not exist"),
    (
        r"^operator does not exist: (?P<a>[\w .\[\]\"<>=!~+*/%^&|#@?-]+)",
        "there is no operator {a}; cast one side of it",
    ),
    (r"^(?P<a>function|operator) .* is not unique", "several of its {a}s would do; cast the arguments"),
    (r'^syntax error at or near "(?P<a>[A-Za-z_]+)"', "its syntax is wrong at {a}"),
    (r"^syntax error at or near", "its syntax is wrong"),
    (r"^syntax error at end of input", "it ends too early"),
    (r"^unterminated", "a quote in it is not closed"),
    (
        r'^column reference "(?P<a>[^"]+)" is ambiguous',
        "the column {a} is in several tables: write the name of its table before it",
    ),
    (r'^column "(?P<a>[^"]+)" must appear in the GROUP BY', "the column {a} is neither grouped by nor aggregated"),
    (rf'^(?P<b>{_KINDS}) "(?P<a>[^"]+)" already exists', "the {b} {a} exists already"),
    (rf'^permission denied for (?P<b>{_KINDS}) "?(?P<a>[^"\s]+)"?', "this role may not use the {b} {a}"),
    (r"^permission denied to (?P<a>[a-z ]{1,40})", "this role may not {a}"),
    (rf'^must be owner of (?P<b>{_KINDS}) "?(?P<a>[^"\s]+)"?', "this role does not own the {b} {a}"),
    (
        rf'^cannot (?:copy (?:to|from)|change|insert into|update|delete from|merge into|truncate) (?P<b>{_KINDS}) '
        r'"(?P<a>[^"]+)"',
        "{a} is a {b}",
    ),
    (r"due to statement timeout", "the statement timeout was over"),
    (r"due to lock timeout", "the lock timeout was over"),
    (r"due to conflict with recovery", "the standby had to go on with what its primary did"),
    (r"^deadlock detected", "two transactions waited for each other"),
    (r"^could not serialize access", "another transaction changed the same rows"),
    (r"^tuple concurrently", "another transaction changed the same thing"),
    (r'^could not obtain lock on (?:row in )?relation "(?P<a>[^"]+)"', "the lock on {a} is taken"),
    (
        rf'^cannot drop (?P<b>{_KINDS}) "?(?P<a>[^"\s]+)"? because other objects depend',
        "other things depend on the {b} {a}",
    ),
    (
        r'^cannot drop column (?P<a>[^\s]+) of table (?P<b>[^\s]+) because',
        "other things depend on the column {a} of {b}",
    ),
    (r'^no partition of relation "(?P<a>[^"]+)" found', "no partition of {a} takes a row"),
    (r'^materialized view "(?P<a>[^"]+)" has not been populated', "the materialized view {a} has not been populated"),
    (r"^more than one row returned by a subquery", "a subquery gave more than one row where one is wanted"),
    (r"^division by zero", "division by zero"),
    (r"can have at most (?P<a>[0-9]+) (?P<b>[a-z]+)", "there may be at most {a} {b}"),
    (
        r'^index row (?:size [0-9]+ exceeds|requires [0-9]+ bytes).*?(?:for index "(?P<a>[^"]+)")?$',
        "a value is too long for an index",
    ),
    (r"^row is too big", "a row is too large for a page"),
    (r"snapshot", "it is not among those that the server knows"),
    (r"administrator command", "an administrator ended it"),
    (r"because of crash of another server process", "another process of the server crashed"),
    (r"^password authentication failed for user", "the password is wrong"),
    (r'^role "(?P<a>[^"]+)" is not permitted to log in', "the role {a} may not log in"),
    (r"no pg_hba.conf entry", "pg_hba.conf has no entry for this host, user and database"),
    (r"too many (?:clients|connections)|connection slots", "all are taken"),
    (
        r"^(?P<a>[A-Z][A-Za-z ]{2,30}) cannot (?:run|be executed) inside a transaction block",
        "{a} cannot run in a transaction",
    ),
    (r"temp_file_limit", "temp_file_limit was reached"),
    (r"^invalid memory alloc request|^requested length too large|out of memory", "a value is too large"),
)  # fmt: skip
_NAMED = re.compile(rf'\b(?P<b>{_KINDS}) "(?P<a>[^"\x00-\x1f]{{1,63}})"')


def said_by_postgres(state: str, message: str) -> str:
    """Say what Postgres says, as the end of a sentence: what is not known is told by the names in it and
    its SQLSTATE.
    """
    found = _known(message, _POSTGRES)
    if found is not None:
        return found
    names = ", ".join(dict.fromkeys(f"the {named['b']} {named['a']}" for named in _NAMED.finditer(message)))
    return f"it is about {names} (SQLSTATE {state})" if names else f"SQLSTATE {state} of the server"


def _known(text: str, words: _Words) -> str | None:
    for pattern, sentence in words:
        found = pattern.search(text)
        if found is None:
            continue
        names = {name: (value or "")[:_LONGEST_NAME] for name, value in found.groupdict().items()}
        if _OF_OURS.fullmatch(names.get("b", "")):
            sentence = sentence.removesuffix(" in {b}")
        return sentence.format(**{**names, "b": _lowered(names.get("b", ""))})
    return None


def _lowered(kind: str) -> str:
    return kind.lower() if kind in ("Table", "View", "Column", "Type", "Collation", "Macro") else kind
