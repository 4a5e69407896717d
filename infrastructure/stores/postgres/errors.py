"""What Postgres says in ours: one table from its SQLSTATEs to a code, a sentence, and whether trying again may help.

Of what the server says only the names of things are passed on, never its text or a value: DETAIL is never read, and of
messages about data only the type is. What the server said of itself is told as that; only a lost connection broke off.
"""

import re
from dataclasses import dataclass
from typing import Any

from domain.errors import (
    ConflictError,
    InvalidInputError,
    NotFoundError,
    PlatformError,
    QueryRefusedError,
    SchemaMismatchError,
    StoreRefusedError,
    StoreUnavailableError,
    WorkFailedError,
)
from infrastructure.descriptors import shortage
from infrastructure.engine_words import said_by_postgres
from infrastructure.postgres.poolers import ADVICE


@dataclass(frozen=True)
class Diagnosis:
    """What a driver tells of a failure: SQLSTATE, first line, and the names of what it is about."""

    state: str
    message: str
    column: str | None = None
    table: str | None = None
    constraint: str | None = None
    function: str | None = None
    is_raised: bool = False
    """A function of the database's users wrote the message."""


@dataclass(frozen=True)
class Answer:
    """Which of our errors a SQLSTATE is. `{reason}` stands for what the server said, in our words."""

    kind: type[PlatformError]
    code: str
    sentence: str


_BROKE_OFF = Answer(StoreUnavailableError, "store.unavailable", "Postgres broke off, or the connection to it did.")
_STARTING = Answer(
    StoreUnavailableError, "store.unavailable", "Postgres is starting, stopping or recovering, and takes no work now."
)
_CONFLICT = Answer(
    StoreUnavailableError,
    "store.conflict",
    "Postgres chose this transaction to end a deadlock or a conflict: {reason}.",
)
_LOCKED = Answer(StoreUnavailableError, "store.locked", "A lock was not to be had in time: {reason}.")
_SNAPSHOT = Answer(StoreUnavailableError, "snapshot.gone", "The snapshot that the streams share is gone: {reason}.")
_READ_ONLY = Answer(
    StoreRefusedError,
    "store.read_only",
    "This Postgres takes no writes: it is a standby, or its default_transaction_read_only is on.",
)
_DATABASE = Answer(StoreRefusedError, "store.database_missing", "The database is not there (any more): {reason}.")
_SIGN_IN = Answer(StoreRefusedError, "store.sign_in", "Postgres refused to sign in: {reason}.")
_STATEMENT = Answer(InvalidInputError, "query.invalid", "Postgres does not take the statement: {reason}.")
_LIMIT = Answer(WorkFailedError, "store.limit", "Postgres has a limit: {reason}.")
_FAILED = Answer(WorkFailedError, "query.failed", "Postgres could not carry out a statement: {reason}.")
_NOT_READY = Answer(WorkFailedError, "store.not_ready", "Postgres cannot use something as it is: {reason}.")
_FUNCTION = Answer(
    WorkFailedError,
    "store.function",
    "A function or trigger of the database raised an error{function}; its text may hold values, so it is in the "
    "server's log only.",
)
_CONSTRAINT = Answer(SchemaMismatchError, "destination.constraint", "A row violates {constraint}.")
_VALUE = Answer(SchemaMismatchError, "value.invalid", "{value}.")

_NOT_A_TABLE = Answer(
    SchemaMismatchError,
    "destination.not_a_table",
    "Batches cannot land there: {reason}. Name the table behind it as the destination; a view into which rows may be "
    "inserted takes them with publish: run.",
)
_HAS_RULES = Answer(
    SchemaMismatchError,
    "destination.not_a_table",
    "Rows cannot be merged there: {reason}. Put triggers in the place of the table's rules, or use mode: append.",
)
_OWN_TABLES = Answer(
    InvalidInputError,
    "store.permission",
    "Postgres does not allow it: {reason}. Headrace keeps tables of its own beside a destination: GRANT SELECT, "
    "INSERT, UPDATE, DELETE on _headrace_checkpoint, _headrace_owner and _headrace_quarantine to this role, or make "
    "it a member of their owner.",
)
_SCHEMA = Answer(
    InvalidInputError,
    "store.permission",
    "Postgres does not allow it: {reason}. GRANT USAGE ON SCHEMA to this role, and for a destination CREATE too.",
)
_OWNER = Answer(
    InvalidInputError,
    "store.permission",
    "Postgres does not allow it: {reason}. Only its owner may add columns or replace it: make this role a member of "
    "the owner.",
)
_POOLED = Answer(StoreRefusedError, "store.pooled", f"Postgres {ADVICE}.")

# Whole SQLSTATEs win over their class, which is the first two characters.
_BY_STATE = {
    "08": _BROKE_OFF,
    "08004": Answer(StoreUnavailableError, "store.unavailable", "Postgres rejected the connection: {reason}."),
    "0A": Answer(InvalidInputError, "store.not_supported", "Postgres does not support it: {reason}."),
    "21": _FAILED,
    "22": _VALUE,
    "22001": Answer(SchemaMismatchError, "value.too_long", "{value}."),
    "22003": Answer(SchemaMismatchError, "value.out_of_range", "{value}."),
    "22008": Answer(SchemaMismatchError, "value.out_of_range", "{value}."),
    "22012": Answer(WorkFailedError, "query.failed", "Postgres could not carry out a statement: division by zero."),
    "22021": Answer(SchemaMismatchError, "value.encoding", "{value}."),
    "22P05": Answer(SchemaMismatchError, "value.encoding", "{value}."),
    "23": _CONSTRAINT,
    "25": Answer(WorkFailedError, "store.transaction", "Postgres ended the transaction: {reason}."),
    "25006": Answer(QueryRefusedError, "query.not_readonly", "Only a statement that reads is allowed."),
    "25P03": Answer(
        StoreUnavailableError,
        "store.idle_timeout",
        "Postgres ended a session whose transaction had waited longer than idle_in_transaction_session_timeout.",
    ),
    "28": _SIGN_IN,
    "2BP01": Answer(
        WorkFailedError,
        "destination.depended_on",
        "Postgres keeps it, as {reason}: drop what depends on it first, or use another mode.",
    ),
    "3D": _DATABASE,
    "3F": Answer(NotFoundError, "table.not_found", "In the database, {reason}."),
    "40": _CONFLICT,
    "42": _STATEMENT,
    "42501": Answer(InvalidInputError, "store.permission", "Postgres does not allow it: {reason}."),
    "42P01": Answer(NotFoundError, "table.not_found", "In the database, {reason}."),
    "42P07": Answer(ConflictError, "destination.exists", "In the database, {reason}."),
    "44": Answer(SchemaMismatchError, "destination.constraint", "A row violates the check option of a view."),
    "53": Answer(StoreUnavailableError, "store.overloaded", "The Postgres server lacks resources: {reason}."),
    "53100": Answer(StoreUnavailableError, "disk_full", "The disk of the Postgres server is full."),
    "53200": Answer(StoreUnavailableError, "store.overloaded", "The Postgres server is out of memory."),
    "53300": Answer(
        StoreUnavailableError, "store.too_many_connections", "The Postgres server takes no more connections: {reason}."
    ),
    "53400": _LIMIT,
    "54": _LIMIT,
    "55": _NOT_READY,
    "55006": _LOCKED,
    "55P03": _LOCKED,
    "57": Answer(StoreUnavailableError, "store.unavailable", "Postgres ended the session: {reason}."),
    "57014": Answer(
        WorkFailedError,
        "query.timeout",
        "Postgres ended a statement: {reason}; raise that limit for this user, or make the query cheaper or its "
        "batches smaller (run.batch_rows).",
    ),
    "57P03": _STARTING,
    "57P04": _DATABASE,
    "58": Answer(StoreUnavailableError, "store.failed", "The Postgres server failed at its own files: {reason}."),
    "72": _SNAPSHOT,
    "F0": Answer(StoreUnavailableError, "store.failed", "The Postgres server cannot use its configuration: {reason}."),
    "HV": Answer(WorkFailedError, "store.foreign", "The foreign server behind a table of Postgres failed: {reason}."),
    "HV00N": Answer(
        StoreUnavailableError, "store.foreign", "The foreign server behind a table of Postgres cannot be reached."
    ),
    # Nobody but a pooler loses a prepared statement between its parts, or finds one that it has not made.
    "26000": _POOLED,
    "42P05": _POOLED,
    "P0": _FUNCTION,
    "XX": Answer(WorkFailedError, "store.failed", "Postgres failed: {reason}."),
}
# What the code alone does not tell: (beginning of the SQLSTATE, the server's words, the answer).
_BY_WORDS = (
    ("0A000", "cached plan must not change",
     Answer(StoreUnavailableError, "store.conflict", "A table was changed meanwhile.")),
    ("22023", "snapshot", _SNAPSHOT),
    ("42704", "snapshot", _SNAPSHOT),
    ("0A000", "cannot execute MERGE on relation", _HAS_RULES),
    ("42501", "_headrace_", _OWN_TABLES),
    ("42501", "permission denied for schema", _SCHEMA),
    ("42501", "must be owner of table", _OWNER),
    ("42809", "cannot copy to ", _NOT_A_TABLE),
    ("42809", "cannot lock relation", _NOT_A_TABLE),
    ("42809", "cannot change materialized view", _NOT_A_TABLE),
    ("42809", "ADD COLUMN cannot be performed", _NOT_A_TABLE),
    ("55000", "cannot insert into view", _NOT_A_TABLE),
    ("55000", "cannot update view", _NOT_A_TABLE),
    ("55000", "cannot delete from view", _NOT_A_TABLE),
    ("55000", "cannot merge into view", _NOT_A_TABLE),
    ("2202", "0x00", Answer(SchemaMismatchError, "value.nul", "{value}.")),
    ("22P05", "escape sequence", Answer(SchemaMismatchError, "value.nul", "{value}.")),
    ("23514", "no partition", Answer(SchemaMismatchError, "destination.no_partition", "At the destination, {reason}.")),
    ("55000", "recovery is in progress", _READ_ONLY),
    ("57014", "user request",
     Answer(StoreUnavailableError, "query.canceled", "Somebody canceled a statement of this run.")),
    ("57P05", "",
     Answer(StoreUnavailableError, "store.idle_timeout",
            "Postgres ended a session that had waited longer than idle_session_timeout.")),
    ("XX000", "tuple concurrently", _CONFLICT),
)  # fmt: skip
# A query's error in the midst of its rows comes without its SQLSTATE, so its words have to do.
_STATES_OF_WORDS = (
    (r"(FATAL|PANIC):|closed the connection|no connection", "08006"),
    (r"canceling statement due to (statement|user)", "57014"),
    (r"canceling statement due to conflict", "40001"),
    (r"deadlock detected|could not serialize", "40001"),
    (r"canceling statement due to lock", "55P03"),
    (r"No space left|could not extend file", "53100"),
    (r"out of memory", "53200"),
    (r"temporary file size exceeds", "53400"),
    (r"division by zero", "22012"),
    (r"invalid byte sequence", "22021"),
    (r"has no equivalent in encoding", "22P05"),
    (r"invalid input syntax|invalid input value", "22P02"),
    (r"too long for type", "22001"),
    (r"out of range|overflow", "22003"),
    (r"permission denied", "42501"),
    (r"more than one row returned", "21000"),
    (r"has not been populated", "55000"),
)
# A server may say megabytes, in which some of these patterns would be looked for at each letter anew.
_LONGEST = 4000
_DRIVER_TIMES = re.compile(r"would overflow|exceeds PostgreSQL|out of range")
_COPY_CONTEXT = re.compile(r"^COPY (?P<table>[^,\n]+), line [0-9]+, column (?P<column>[^:\n]+)", re.MULTILINE)
_FUNCTION_CONTEXT = re.compile(r"^PL/pgSQL function ([\w.\"]+\([^)]*\))", re.MULTILINE)
_RAISED = re.compile(r"\A[^\n]* at RAISE$", re.MULTILINE)
_NAMED = re.compile(r"(?:constraint|column|relation|view|table) \"[^\"]+\"")
_OVERFLOWN = re.compile(r"^([a-z ]+?)(?: field)? (?:out of range|overflow)")
_TYPE = re.compile(r"type ([a-z_][a-z_ ]*(?:\([0-9, ]+\))?(?:\[\])*)")
_ENCODING = re.compile(r"encoding \"([A-Za-z0-9_]+)\"")


def translate(error: Exception, *, writes: bool = False) -> PlatformError:
    """Turn a driver's error into one of ours. `writes` says that nothing of a user's query ran, but a write of ours."""
    found = diagnose(error)
    if not found.state:
        return _of_driver(error)
    answer = next(
        (a for state, words, a in _BY_WORDS if found.state.startswith(state) and words in found.message), None
    )
    if answer is None and writes and found.state == "25006":
        answer = _READ_ONLY
    answer = answer or _BY_STATE.get(found.state) or _BY_STATE.get(found.state[:2]) or _FUNCTION
    if found.is_raised:  # Its code may ask for another try; its text is its author's.
        is_conflict = found.state.startswith("40")
        answer = Answer(answer.kind, answer.code, _FUNCTION.sentence) if is_conflict else _FUNCTION
    sentence = answer.sentence.format(
        reason=said_by_postgres(found.state, found.message),
        value=_value(found) if "{value}" in answer.sentence else "",
        constraint=_violated(found) if "{constraint}" in answer.sentence else "",
        function=f" ({found.function})" if found.function else "",
    )
    return answer.kind(sentence, code=answer.code)


def diagnose(error: Exception) -> Diagnosis:
    """Gather what a driver tells, whichever it is: ADBC in a list of fields, asyncpg in attributes."""
    fields: dict[str, str] = {}
    for key, value in getattr(error, "details", None) or ():
        name = key.decode() if isinstance(key, bytes) else str(key)
        fields[name.removeprefix("PG_DIAG_").lower()] = value.decode(errors="replace")

    def field(adbc: str, asyncpg: str) -> str | None:
        value: Any = fields.get(adbc) or getattr(error, asyncpg, None)
        return str(value)[:_LONGEST] if value else None

    text = str(error)[:_LONGEST]
    state = getattr(error, "sqlstate", None) or ""
    message = field("message_primary", "message") or re.sub(r"^.*?[A-Z]+:  ", "", text.partition("\n")[0])
    if not state and re.search(r"(ERROR|FATAL|PANIC):  ", text):
        state = next((s for words, s in _STATES_OF_WORDS if re.search(words, text)), "P0001")
    context = field("context", "context") or ""
    copied, called = _COPY_CONTEXT.search(context), _FUNCTION_CONTEXT.search(context)
    column = field("column_name", "column_name") or (copied["column"].strip() if copied else None)
    table = field("table_name", "table_name") or (copied["table"] if copied else None)
    return Diagnosis(
        state=state,
        message=message,
        column=column,
        table=None if table is not None and table.startswith(("headrace_", "_headrace_")) else table,
        constraint=field("constraint_name", "constraint_name"),
        function=called[1] if called else None,
        is_raised=_RAISED.search(context) is not None,
    )


def _of_driver(error: Exception) -> PlatformError:
    """An error that no server sent: the connection's, or the driver's own refusal of a value."""
    if _DRIVER_TIMES.search(str(error)[:_LONGEST]):
        return SchemaMismatchError(
            "A time or interval is beyond what can be carried, such as infinity; make it NULL in the source query.",
            code="source.time_out_of_range",
        )
    status = getattr(getattr(error, "status_code", None), "name", "")
    if isinstance(error, ValueError) or status in ("INVALID_ARGUMENT", "INVALID_DATA", "NOT_IMPLEMENTED"):
        return SchemaMismatchError("The driver cannot carry a value or type of this batch.", code="value.invalid")
    return shortage(error) or StoreUnavailableError(_BROKE_OFF.sentence)


def _value(found: Diagnosis) -> str:
    """What is wrong with a value, without the value: the column if it is known, and the type or encoding."""
    kind = _TYPE.search(found.message) or _OVERFLOWN.search(found.message)
    encoding = _ENCODING.findall(found.message)
    wanted = f" for {kind[1].strip().replace('character varying', 'varchar')}" if kind else ""
    if "0x00" in found.message or "escape sequence" in found.message:
        what = "a NUL character, which text of Postgres cannot hold"
    elif found.state == "22001":
        what = f"a value that is too long{wanted}"
    elif found.state in ("22003", "22008"):
        what = f"a value that is out of range{wanted}"
    elif found.state == "22021":
        what = f"a text with bytes that are no {encoding[0] if encoding else 'text'}"
    elif found.state == "22P05":
        what = f"a character that {encoding[-1] if encoding else 'the encoding'} does not have"
    elif kind:
        what = f"a value that is no {kind[1].strip()}"
    else:
        what = f"a value that Postgres cannot take (SQLSTATE {found.state})"
    place = f"column {found.column}" + (f" of {found.table}" if found.table else "")
    return f"The {place} holds {what}" if found.column else f"There is {what}"


def _violated(found: Diagnosis) -> str:
    """Which constraint, column and table a row violates."""
    if found.constraint:
        return f"the constraint {found.constraint}" + (f" of {found.table}" if found.table else " of the table")
    if found.state == "23502" and found.column:
        return f"the column {found.column}" + (f" of {found.table}" if found.table else "") + ", which holds no NULL"
    named = _NAMED.search(found.message)
    return f"a constraint of the table: {named[0]}" if named else "a constraint of the table"


# What libpq and asyncpg say when there is no session yet; the server's own SQLSTATE is told by asyncpg only.
_WORDS_OF_CONNECTING = (
    (r"server requested a cleartext password", "clear"),
    (r"authentication method requirement", "method"),
    (r"certificate|does not support SSL|SSL error|rejected SSL", "tls"),
    (r"Temporary failure in name resolution", "08001"),
    (r"could not translate host name|Name or service not known|No address associated", "host"),
    (r"database \".*\" does not exist", "3D000"),
    (r"authentication failed|no password supplied|no pg_hba|does not exist|not permitted|permission denied", "28000"),
    (r"too many (clients|connections)|remaining connection slots", "53300"),
    (r"not (currently|yet) accepting|starting up|shutting down|recovery mode", "57P03"),
)


def not_connected(error: Exception, *, place: str, user: str, database: str, sslmode: str | None) -> PlatformError:
    """Say why there is no session: only what may pass by itself is worth another try."""
    text = str(error)[:_LONGEST]
    state = next((s for words, s in _WORDS_OF_CONNECTING if re.search(words, text)), None)
    match state if state in ("clear", "method") else getattr(error, "sqlstate", None) or state:
        case "clear":
            return StoreRefusedError(
                f"Postgres at {place} asks for the password in clear, and it is sent so under verified TLS only: use "
                "sslmode verify-full with ssl_ca_cert, or have the server ask for scram-sha-256.",
                code="store.password_in_clear",
            )
        case "method":
            return StoreRefusedError(
                f"Postgres at {place} asks to be signed in to in a way that this connection does not allow, such as "
                "Kerberos, or another one than its require_auth.",
                code="store.sign_in_method",
            )
        case "tls":  # Its files are opened to connect.
            return shortage(error) or StoreRefusedError(
                f"Postgres at {place} and sslmode {sslmode} do not go together: the server speaks no TLS, or its "
                "certificate is not vouched for by ssl_ca_cert.",
                code="store.tls",
            )
        case "host":  # A resolver that can open nothing knows nobody.
            short = shortage(error, is_why_untold=True)
            return short or StoreRefusedError(f"There is no host of this name: {place}.", code="store.host_unknown")
        case "3D000":
            return StoreRefusedError(
                f"Postgres at {place} has no database named {database}.", code="store.database_missing"
            )
        case "28000" | "28P01" | "42501":
            return StoreRefusedError(
                f"Postgres at {place} refused to sign in {user} to the database {database}: the user, its password or "
                "what it may do is wrong.",
                code="store.sign_in",
            )
        case "53300":
            return StoreUnavailableError(
                f"Postgres at {place} takes no more connections.", code="store.too_many_connections"
            )
        case "57P03":
            return StoreUnavailableError(f"Postgres at {place} is starting, stopping or recovering.")
    if getattr(error, "sqlstate", None):
        return translate(error)
    return shortage(error) or StoreUnavailableError(f"Postgres at {place} cannot be reached.")
