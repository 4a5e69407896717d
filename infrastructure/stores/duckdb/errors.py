"""What DuckDB says in ours, by the class and the words of its errors: a code, a sentence without values, a class of
retry.
"""

import re
from collections.abc import Callable
from pathlib import Path

import duckdb

from domain.errors import (
    BusyError,
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
from infrastructure.engine_words import said_by_duckdb

_TYPE = re.compile(r"\bto (?:type )?([A-Z][A-Z0-9_]*(?:\([0-9, ]+\))?)")
_NOT_NULL = re.compile(r"NOT NULL constraint failed: ([\w.\"]+)")
_DISK_FULL = "No space left"
_MEMORY = r"failed to (pin|allocate)|could not allocate|[Oo]ut of [Mm]emory"


def translate(error: duckdb.Error) -> PlatformError:
    """Turn a driver's error into one of ours. Of what it says of a query's text the names are kept."""
    text = str(error).strip()
    first_line = text.splitlines()[0][:300] if text else ""
    if short := shortage(error):
        return short
    if _DISK_FULL in text:  # Told by whatever was being done, COMMIT too.
        return StoreUnavailableError("The disk is full.", code="disk_full")
    for kinds, words, answer in _ANSWERS:
        if isinstance(error, kinds) and re.search(words, text):
            return answer(said_by_duckdb(error) if answer in _ABOUT_TEXT else first_line)
    return StoreUnavailableError(f"DuckDB failed ({type(error).__name__}).")


def lacks_memory(error: duckdb.Error) -> bool:
    """Whether DuckDB would have needed more memory than it may use, in whatever it did."""
    return re.search(_MEMORY, str(error)) is not None


def is_committed(error: duckdb.Error) -> bool:
    """Whether COMMIT failed at nothing but the checkpoint that it made after it."""
    return isinstance(error, duckdb.FatalException) and "COMMIT succeeded and is durable" in str(error)


def not_opened(error: duckdb.Error | OSError, path: Path | None) -> PlatformError:
    """Say why a DuckDB file does not open: what is no file of DuckDB's stays none, however often it is tried."""
    text = str(error)
    if short := shortage(error):
        return short
    if isinstance(error, OSError):
        return StoreRefusedError(
            f"The folder of {path} cannot be made or used: see who may write there, and whether a file is in its "
            "place.",
            code="store.not_openable",
        )
    if path is None or _DISK_FULL in text or "Could not set lock" in text or lacks_memory(error):
        return translate(error)
    if path.is_dir():
        return StoreRefusedError(f"{path} is a folder; the DuckDB file has to be a file.", code="store.not_duckdb")
    if re.search(_OPEN_ALREADY, text):
        return BusyError(
            f"{path} is open in this process already, for another connection (which may be the settings' own, "
            "default): a DuckDB file has one, so name that one wherever the file is meant.",
            code="store.in_use",
        )
    for words, code, sentence in _NOT_OPENED:
        if re.search(words, text):
            return StoreRefusedError(sentence.format(path=path), code=code)
    return translate(error)


# Of one file in one process DuckDB makes one database, which the first to open it has locked the settings of.
_OPEN_ALREADY = "configuration has been locked|different configuration than existing"
_NOT_OPENED = (
    (
        r"not a valid DuckDB|sqlite_scanner|extension",
        "store.not_duckdb",
        "{path} is not a DuckDB file; name another one or move it away.",
    ),
    (
        r"version number|newer version|storage version|serialization version",
        "store.newer",
        "{path} was written by a newer DuckDB than this program has; update the program, or export the file's tables.",
    ),
    (
        r"[Cc]orrupt|checksum|enough bytes|replaying WAL|WAL file",
        "store.corrupt",
        "{path} is damaged: restore it from a backup, or move it away and load again.",
    ),
    (
        r"Permission denied|not permitted|Read-only file system",
        "store.permission",
        "{path} may not be written by this user, or its file system is read-only.",
    ),
    (r"No such file or directory|Cannot open file", "store.not_openable", "{path} cannot be opened: no such folder."),
)


def _with(kind: type[PlatformError], code: str, sentence: str) -> Callable[[str], PlatformError]:
    return lambda first_line: kind(sentence.format(reason=first_line), code=code)


def _busy(first_line: str) -> PlatformError:
    holder = re.search(r"PID ([0-9]+)", first_line)
    who = f"process {holder[1]}" if holder else "another process"
    return BusyError(f"The DuckDB file is in use by {who}; one process owns the file.", code="store.in_use")


def _value(code: str, what: str) -> Callable[[str], PlatformError]:
    def answer(first_line: str) -> PlatformError:
        kind = _TYPE.search(first_line)
        return SchemaMismatchError(
            f"DuckDB could not take a value: {what}{f' for {kind[1]}' if kind else ''}.", code=code
        )

    return answer


def _constraint(first_line: str) -> PlatformError:
    column = _NOT_NULL.search(first_line)
    if column:
        what = f"the column {column[1]}, which holds no NULL"
    elif found := re.search(r"primary key|unique|foreign key|CHECK", first_line, re.IGNORECASE):
        what = f"a {found[0].lower()} constraint of the table"
    else:
        what = "a constraint of the table"
    return SchemaMismatchError(f"A row violates {what}.", code="destination.constraint")


_NO_TABLE = _with(NotFoundError, "table.not_found", "In the database, {reason}.")
_NO_QUERY = _with(InvalidInputError, "query.invalid", "DuckDB does not take the query: {reason}.")
_ABOUT_TEXT = (_NO_TABLE, _NO_QUERY)
_NO_MEMORY = _with(
    WorkFailedError,
    "store.memory",
    "DuckDB needs more memory than it may use, or more room in the scratch folder: raise its limits "
    "(HEADRACE_STORE__DUCKDB__MEMORY_LIMIT, …SPILL_LIMIT), or make batches smaller (run.batch_rows).",
)
# The first that fits is the answer; a class stands before the classes that it derives from.
_ANSWERS: tuple[tuple[tuple[type[duckdb.Error], ...], str, Callable[[str], PlatformError]], ...] = (
    ((duckdb.IOException,), "Could not set lock", _busy),
    (
        (duckdb.CatalogException,),
        r"(Table|View|Schema)\b.* does not exist|does not exist.*(table|schema)",
        _NO_TABLE,
    ),
    (
        (duckdb.DependencyException,),
        "",
        _with(WorkFailedError, "destination.depended_on", "Other things depend on the table; drop them first."),
    ),
    (
        (duckdb.TransactionException, duckdb.CatalogException),
        r"[Cc]onflict",
        _with(StoreUnavailableError, "store.conflict", "Another transaction changed the same rows or tables first."),
    ),
    (
        (duckdb.TransactionException,),
        "read-only mode",
        _with(
            QueryRefusedError,
            "query.not_readonly",
            "What is read takes from a sequence, or writes otherwise, perhaps behind a view; make a table of what it "
            "gives.",
        ),
    ),
    (
        (duckdb.BinderException,),
        "Ambiguous reference to catalog or schema",
        _with(
            InvalidInputError,
            "identifier.ambiguous",
            "The DuckDB file and a schema in it have one name, and DuckDB cannot tell which of them is meant: rename "
            "the file, or use another schema.",
        ),
    ),
    (
        (duckdb.CatalogException, duckdb.BinderException, duckdb.ParserException),
        "",
        _NO_QUERY,
    ),
    ((duckdb.ConstraintException,), "", _constraint),
    (
        (duckdb.OutOfRangeException,),
        "",
        _value("value.out_of_range", "it is out of range"),
    ),
    ((duckdb.ConversionException,), "range|fit", _value("value.out_of_range", "it is out of range")),
    ((duckdb.ConversionException, duckdb.TypeMismatchException), "", _value("value.invalid", "it is of another type")),
    (
        (duckdb.InvalidInputException,),
        r"[Uu]nicode|UTF-?8|null-byte",
        _value("value.encoding", "a text is not UTF-8, or holds a NUL"),
    ),
    (
        (duckdb.NotImplementedException, duckdb.NotSupportedError),
        "",
        _with(InvalidInputError, "store.not_supported", "DuckDB does not support it."),
    ),
    (
        (duckdb.PermissionException, duckdb.InvalidInputException),
        "",
        _with(InvalidInputError, "query.refused", "DuckDB refused the statement."),
    ),
    ((duckdb.OutOfMemoryException,), "", _NO_MEMORY),
    ((duckdb.TransactionException,), f"Failed to commit: .*({_MEMORY})", _NO_MEMORY),
    (
        (duckdb.FatalException,),
        "",
        _with(
            StoreUnavailableError,
            "store.given_up",
            "DuckDB gave the file up, as after a checkpoint that failed; what was committed is in it. It is opened "
            "anew once nobody uses it.",
        ),
    ),
    ((duckdb.Error,), r"[Cc]orrupt|checksum", _with(StoreRefusedError, "store.corrupt", "The DuckDB file is damaged.")),
    (
        (duckdb.IOException,),
        "Read-only file system|Permission denied",
        _with(StoreRefusedError, "store.permission", "The DuckDB file may not be written."),
    ),
)
