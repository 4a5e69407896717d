"""SQL that reads a text as another type only where the value is the very one that was written, NULL where it is not.

The types of a CSV are guessed by these expressions, and its values are converted by the same ones, so that a guess
changes nothing. A value is compared with DuckDB's own spelling of what was read: that is cheaper than a pattern, and
sees whatever was rounded, wrapped, cut or completed on the way.
"""

import re

NOT_CONVERTED = "headrace: a value does not convert"
"""What a statement fails with that converts text while it writes it."""
INTEGERS = {
    "int8": "TINYINT",
    "int16": "SMALLINT",
    "int32": "INTEGER",
    "int64": "BIGINT",
    "uint8": "UTINYINT",
    "uint16": "USMALLINT",
    "uint32": "UINTEGER",
    "uint64": "UBIGINT",
}
_FLOATS = {"float32": "FLOAT", "float64": "DOUBLE"}
_DECIMAL = re.compile(r"decimal\(([0-9]|[12][0-9]|3[0-8]),([0-9]+)\)")
_BOOLS = {"true": ("true", "True", "TRUE"), "false": ("false", "False", "FALSE")}
_PLAIN = "-?(0|[1-9][0-9]*)([.][0-9]+)?"
# With one digit before the point, as machines write numbers; 12e5 is as likely a code that has an e in it.
_SCIENTIFIC = "-?[1-9]([.][0-9]+)?[eE][+-]?[0-9]{1,3}"
_SURE_DIGITS = 15
"""As many significant digits come back from every float64 of a usual size: none shorter means the same one."""
CLOCK = "([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9]([.][0-9]{1,6})?)?"
# Not the year 0, which DuckDB reads as 1 BC.
EARLY_YEARS = "000[1-9]|00[1-9][0-9]|0[1-9][0-9]{2}"
# No zone is further from UTC.
OFFSET_HOURS = "[+-](0[0-9]|1[0-4])"
_DAY = f"({EARLY_YEARS}|[1-9][0-9]{{3}})-[0-9]{{2}}-[0-9]{{2}}"
_ZONE = f"(Z|{OFFSET_HOURS}(:?[0-5][0-9])?)"
_YEARS = "BETWEEN '0001-01-01 00:00:00{0}' AND '9999-12-31 23:59:59.999999{0}'"


def is_plain_number(text: str) -> str:
    """Return SQL that says whether a text is a number as it is spelled everywhere: no code with leading zeros or a
    sign.
    """
    return f"({_matches(text, f'{_PLAIN}|{_SCIENTIFIC}')} AND NOT {_matches(text, '-0([.]0*)?')})"


def exact(text: str, wanted: str, *, otherwise: str = "NULL") -> str | None:
    """Return SQL that reads the expression `text` as a type of ours, or None where only text itself says what it says.

    `otherwise` is the SQL for a text that says something else, and for NULL.
    """
    read = _exact(text, wanted)
    return read.removesuffix("END") + f"ELSE {otherwise} END" if read is not None else None


def _exact(text: str, wanted: str) -> str | None:
    if wanted in INTEGERS:
        return _where(_read(text, INTEGERS[wanted]), f"{_spelled(text, INTEGERS[wanted])} = {text}")
    if match := _DECIMAL.fullmatch(wanted):
        return _decimal(text, wanted.upper(), int(match[2]))
    if wanted in _FLOATS:
        return _float(text, _FLOATS[wanted])
    match wanted:
        case "bool":
            cases = [f"WHEN '{spelling}' THEN {value}" for value, all_of in _BOOLS.items() for spelling in all_of]
            return f"CASE {text} {' '.join(cases)} END"
        case "date":
            return _where(_read(text, "DATE"), f"{_spelled(text, 'DATE')} = {text} AND length({text}) = 10")
        case "time":
            is_spelled = f"{_spelled(text, 'TIME')} = {text} AND {text} < '24'"
            return _where(_read(text, "TIME"), is_spelled, _matches(text, CLOCK))
        case "timestamp":
            return _timestamp(text)
        case "timestamptz":
            return _timestamptz(text)
        case _:
            return None


def _read(text: str, kind: str) -> str:
    return f"TRY_CAST({text} AS {kind})"


def _spelled(text: str, kind: str) -> str:
    return f"CAST({_read(text, kind)} AS VARCHAR)"


def _where(result: str, *conditions: str) -> str:
    """The result where one of several conditions holds; each is asked only of the values that those before left."""
    return f"CASE {' '.join(f'WHEN {condition} THEN {result}' for condition in conditions)} END"


def _decimal(text: str, kind: str, scale: int) -> str:
    """What was written is a beginning of what was read, or goes on with nothing but zeros."""
    spelled = _spelled(text, kind)
    rest = f"rtrim(substr({text}, length({spelled}) + 1), '0') = '{'' if scale else '.'}'"
    return _where(
        _read(text, kind),
        f"{spelled} = {text}",
        f"starts_with({spelled}, {text}) AND NOT ends_with({text}, '.')",
        f"starts_with({text}, {spelled}) AND {rest}",
    )


def _float(text: str, kind: str) -> str:
    """The shortest decimal that means this float is the one that was written."""
    read, spelled = _read(text, kind), _spelled(text, kind)
    digits, sizes = (_SURE_DIGITS, "1e-300 AND 1e300") if kind == "DOUBLE" else (6, "1e-30 AND 1e30")
    rest = f"rtrim(substr({text}, length({spelled}) + 1), '0') = '' AND NOT contains({spelled}, 'e')"
    is_short = f"length(translate(split_part(lower({text}), 'e', 1), '-.', '')) <= {digits}"
    is_same = f"({is_short} AND abs({read}) BETWEEN {sizes}) OR {_exponent(text)} = {_exponent(spelled)}"
    return _where(
        read,
        f"{spelled} = {text} AND isfinite({read})",
        f"{spelled} = {text} || '.0' AND {text} <> '-0'",
        f"starts_with({text}, {spelled}) AND {rest} AND isfinite({read})",
        f"isfinite({read}) AND {text} <> '-0' AND {_matches(text, f'{_PLAIN}|{_SCIENTIFIC}')} AND ({is_same})",
    )


def _exponent(number: str) -> str:
    """The number with its exponent in the shortest spelling."""
    return f"regexp_replace(lower({number}), 'e[+]?(-?)0*', 'e\\1')"


def _timestamp(text: str) -> str:
    """Of four digits of a year to at most six of a second; `T` or a space between day and time, and no zone."""
    read, spelled = _read(text, "TIMESTAMP"), _spelled(text, "TIMESTAMP")
    return _where(
        read,
        f"{spelled} = {text} AND {read} {_YEARS.format('')}",
        f"{spelled} = replace({text}, 'T', ' ') AND {read} {_YEARS.format('')}",
        _matches(text, f"{_DAY}[ T]{CLOCK}"),
    )


def _timestamptz(text: str) -> str:
    """A timestamp and its distance from UTC: the instant is kept, in the years 1 to 9999, and that there is a zone."""
    read, spelled = _read(text, "TIMESTAMPTZ"), _spelled(text, "TIMESTAMPTZ")
    years = _YEARS.format("+00")
    return _where(
        read,
        f"{spelled} = replace(replace({text}, 'T', ' '), 'Z', '+00') AND {read} {years}",
        f"{_matches(text, f'{_DAY}[ T]{CLOCK}{_ZONE}')} AND {read} {years}",
    )


def _matches(text: str, pattern: str) -> str:
    return f"regexp_full_match({text}, '{pattern}')"
