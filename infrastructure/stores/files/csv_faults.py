"""What is wrong with a CSV file, in a sentence with file and line: looked for only once reading it has failed."""

import codecs
import csv
import sys
from collections.abc import Sequence
from contextlib import suppress
from itertools import chain

import pyarrow as pa

from domain.errors import InvalidInputError, NotFoundError, PlatformError, StoreUnavailableError
from domain.stores.table import check_identifier
from infrastructure.descriptors import shortage
from infrastructure.stores.files.csv_lines import Lines, RowTooLongError, TooManyValuesError
from infrastructure.threads import stop_if_unwanted

END = "\x1fheadrace: end of the file\x1f"
"""Written behind the last row: where it does not come back as a row of its own, a quote before it was never closed."""
_CHUNK_BYTES = 1024 * 1024
_MAGIC = {
    b"\x1f\x8b": "compressed with gzip; let its name end in .gz",
    b"BZh": "compressed with bzip2; let its name end in .bz2",
    b"\x28\xb5\x2f\xfd": "compressed with zstd; let its name end in .zst",
    b"PK\x03\x04": "a zip archive or a spreadsheet; unpack it or save it as CSV",
    b"PAR1": "Parquet; let its name end in .parquet, or say format: parquet",
}
_MARKS = {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16", codecs.BOM_UTF8: "utf-8"}


class FaultyTextError(Exception):
    """The text holds what no CSV holds: a NUL, or a quote that is never closed."""


def unreadable(name: str, error: OSError | None = None) -> PlatformError:
    """Say that the file cannot be opened, or cannot be read to its end."""
    match error:
        case FileNotFoundError():
            return NotFoundError(f"The file {name} is gone.", code="file.not_found")
        case PermissionError():
            return InvalidInputError(f"The file {name} may not be read.", code="file.unreadable")
        case OSError():
            return shortage(error) or StoreUnavailableError(
                f"The file {name} cannot be opened.", code="file.unreadable"
            )
        case None:
            return InvalidInputError(
                f"The file {name} cannot be read to its end: it is damaged, cut off, or not compressed as its name "
                "says.",
                code="file.malformed",
            )


def check_beginning(first: bytes, name: str, encoding: str) -> None:
    """Refuse a file whose first bytes say that it is something else.

    Raises:
        InvalidInputError: it is (`file.malformed`, `file.encoding`).
    """
    for magic, what in _MAGIC.items():
        if first.startswith(magic):
            raise InvalidInputError(f"The file {name} is no CSV but {what}.", code="file.malformed")
    declared = codecs.lookup(encoding).name
    for mark, marked in _MARKS.items():
        if first.startswith(mark) and not declared.startswith(marked):
            raise InvalidInputError(
                f"The file {name} begins with the mark of {marked} and is read as {encoding}: write "
                f"options: {{encoding: {marked}}} in the source.",
                code="file.encoding",
            )


def bad_character(raw: pa.NativeFile, name: str, encoding: str) -> PlatformError | None:
    """Find the first character that is none in the encoding, or a NUL."""
    decoder = codecs.getincrementaldecoder(encoding)()
    line, column, fault = 1, 1, None
    while fault is None:
        stop_if_unwanted()
        chunk: bytes = raw.read(_CHUNK_BYTES)
        try:
            text = decoder.decode(chunk, not chunk)
        except UnicodeDecodeError as error:
            begun = codecs.getincrementaldecoder("utf-16-le" if error.encoding == "utf-16" else error.encoding)()
            text, fault = begun.decode(error.object[: error.start]), _not_encoded(error.object[error.start :], encoding)
        except UnicodeError:
            return InvalidInputError(
                f"The file {name} is not {encoding}: it does not begin with a byte order mark; if it is written "
                f"without one, write options: {{encoding: {encoding}-le}} in the source.",
                code="file.encoding",
            )
        before, nul, _ = text.partition("\0")
        if nul:
            text, fault = before, _nul(before + text[len(before) : len(before) + 8], encoding)
        elif not chunk and fault is None:
            return None
        line, column = _moved(line, column, text)
    return InvalidInputError(f"{name}, line {line}, character {column}: {fault}", code="file.encoding")


def _moved(line: int, column: int, text: str) -> tuple[int, int]:
    """Where one is behind a text."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return (line + len(lines) - 1, len(lines[-1]) + 1) if len(lines) > 1 else (line, column + len(text))


def _not_encoded(rest: bytes, encoding: str) -> str:
    try:
        rest[:_CHUNK_BYTES].decode("windows-1252")
        likely = "windows-1252"
    except UnicodeDecodeError:
        likely = "latin-1"
    if codecs.lookup(encoding).name != "utf-8":
        return f"no character of {encoding}; say another encoding in the options of the source."
    return (
        f"no character of UTF-8. If the file is {likely}, write options: {{encoding: {likely}}} in the source; any "
        "other encoding is named in the same way."
    )


def _nul(text: str, encoding: str) -> str:
    nuls = [place for place, character in enumerate(text[-9:]) if character == "\0"]
    if encoding == "utf-8" and len(nuls) > 1:
        return (
            "a NUL, as in UTF-16 without a byte order mark: write options: {encoding: utf-16-le} (or utf-16-be) in "
            "the source."
        )
    return "a NUL, which no text holds; the file is damaged, or not a CSV."


def row_too_large(place: str, longest_row_bytes: int) -> PlatformError:
    """Say that a row is larger than one may be."""
    return InvalidInputError(
        f"{place}: the row that begins here has more than {longest_row_bytes:,} bytes, or a quote in it is never "
        "closed.",
        code="source.row_too_large",
    )


def check_header(names: Sequence[str], name: str, line: int) -> None:
    """Refuse a header whose values cannot name columns.

    Raises:
        InvalidInputError: there are none, or one is missing, doubled or no name (`file.malformed`).
    """
    if not names:
        behind = f" behind the {line - 1} lines that are skipped" if line > 1 else ""
        raise InvalidInputError(f"{name} is empty{behind}: a CSV begins with a header.", code="file.malformed")
    first: dict[str, int] = {}
    for number, column in enumerate(names, start=1):
        what = None
        if not column.strip():
            end = ", or take the separator at the line's end away" if number == len(names) > 1 else ""
            what = f"column {number} has no name; give it one in the header{end}."
        elif first.setdefault(column, number) != number:
            what = f"two columns are named {column}; give one of them another name in the header."
        else:
            try:
                check_identifier(column)
            except ValueError as error:
                what = (
                    f"column {number} ({column[:100]!r}) cannot be named so: {error}; give it another name in the "
                    "header."
                )
        if what:
            raise InvalidInputError(f"{name}, line {line}: {what}", code="file.malformed")


def bad_structure(lines: Lines, name: str, delimiter: str, width: int, skip: int = 0) -> PlatformError | None:
    """Find the first row that has not as many values as the header, or in which a quote is opened and never closed.

    Raises:
        RowTooLongError: a row before that has more characters than a row may have.
    """
    csv.field_size_limit(sys.maxsize)  # Of the whole process; lines are what is bounded.
    lines.skip(skip)
    rows = csv.reader(chain(lines, ["\n", f"{END}\n"]), delimiter=delimiter)
    line = skip + 1
    try:
        for row in rows:
            lines.end_row()
            if row == [END]:
                break
            if row and END in row[-1]:
                return InvalidInputError(
                    f"{name}, line {line}: in the row that begins here a quote is never closed.", code="file.malformed"
                )
            width = width or len(row)
            if row and len(row) != width:
                return _ragged(f"{name}, line {line}", row, width, delimiter)
            line = lines.number + 1
    except TooManyValuesError as error:
        than = f" where the header has {width}" if width else ""
        return InvalidInputError(
            f"{name}, line {line}: more than {error.most:,} values{than}, separated by {delimiter!r}.",
            code="file.malformed",
        )
    return None


def _ragged(place: str, row: Sequence[str], width: int, delimiter: str) -> PlatformError:
    hint = ""
    if width == 1:
        hint = (
            ' If the file separates values otherwise, write options: {delimiter: ";"} in the source; if lines stand '
            "before "
            "its header, options: {skip_rows: 1} for one."
        )
    elif len(row) > width and any('"' in value for value in row):
        hint = " A value that holds the separator is in quotes from its first to its last character."
    count = "1 value" if len(row) == 1 else f"{len(row)} values"
    return InvalidInputError(
        f"{place}: {count} where the header has {width}, separated by {delimiter!r}.{hint}",
        code="file.malformed",
    )


def line_of_row(lines: Lines, delimiter: str, row: int, skip: int = 0) -> int:
    """The line on which a row begins; the header is none, the first row is 0, and empty lines count as no row."""
    csv.field_size_limit(sys.maxsize)
    lines.skip(skip)
    rows = csv.reader(lines.outlines(), delimiter=delimiter)
    begins, found = skip + 1, -2
    with suppress(RowTooLongError):  # It is the one that is looked for.
        for values in rows:
            lines.end_row()
            found += bool(values)
            if found == row:
                break
            begins = lines.number + 1
    return begins
