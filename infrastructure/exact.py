"""SQL that reads a text as another type only where the value is the very one that was written, NULL where it is not.

The types of a CSV are guessed by these expressions, and its values are converted by the same ones, so that a guess changes
nothing. A value is compared with DuckDB's own spelling of what was read: that is cheaper than a pattern, and sees whatever
was rounded, wrapped, cut or completed on the way.
"""

import re

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
_DECIMAL = re.compile(r"decimal\([0-9]+,([0-9]+)\)")
_BOOLS = {"true": ("true", "True", "TRUE"), "false": ("false", "False", "FALSE")}
_PLAIN = "-?(0|[1-9][0-9]*)([.][0-9]+)?"
# With one digit before the point, as machines write numbers; 12e5 is as likely a code that has an e in it.
_SCIENTIFIC = "-?[1-9]([.][0-9]+)?[eE][+-]?[0-9]{1,3}"
_SURE_DIGITS = 15
"""As many significant digits come back from every float64 of a usual size: none shorter means the same one."""
_CLOCK = "([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9]([.][0-9]{1,6})?)?"
_DAY = "(000[1-9]|00[1-9][0-9]|0[1-9][0-9]{2}|[1-9][0-9]{3})-[0-9]{2}-[0-9]{2}"
_ZONE = "(Z|[+-](0[0-9]|1[0-4])(:?[0-5][0-9])?)"
_YEARS = "BETWEEN '0001-01-01 00:00:00+00' AND '9999-12-31 23:59:59.999999+00'"


def exact(text: str, wanted: str) -> str | None:
    """Return SQL that reads the expression `text` as a type of ours, or None where only text itself says what it says."""
    if wanted in INTEGERS:
        return _where(f"{_spelled(text, INTEGERS[wanted])} = {text}", _read(text, INTEGERS[wanted]))
    if match := _DECIMAL.fullmatch(wanted):
        return _decimal(text, wanted.upper(), int(match[1]))
    if wanted in _FLOATS:
        return _float(text, _FLOATS[wanted])
    match wanted:
        case "bool":
            cases = [f"WHEN '{spelling}' THEN {value}" for value, all_of in _BOOLS.items() for spelling in all_of]
            return f"CASE {text} {' '.join(cases)} END"
        case "date":
            return _where(f"{_spelled(text, 'DATE')} = {text} AND length({text}) = 10", _read(text, "DATE"))
        case "time":
            is_same = f"({_spelled(text, 'TIME')} = {text} AND {text} < '24') OR {_matches(text, _CLOCK)}"
            return _where(is_same, _read(text, "TIME"))
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


def _where(condition: str, result: str) -> str:
    return f"CASE WHEN {condition} THEN {result} END"


def _decimal(text: str, kind: str, scale: int) -> str:
    """What was written is a beginning of what was read, or goes on with nothing but zeros."""
    spelled = _spelled(text, kind)
    rest = f"rtrim(substr({text}, length({spelled}) + 1), '0') = '{'' if scale else '.'}'"
    shorter = f"starts_with({spelled}, {text}) AND NOT ends_with({text}, '.')"
    return _where(f"({shorter}) OR (starts_with({text}, {spelled}) AND {rest})", _read(text, kind))


def _float(text: str, kind: str) -> str:
    """The shortest decimal that means this float is the one that was written."""
    read, spelled = _read(text, kind), _spelled(text, kind)
    rest = f"rtrim(substr({text}, length({spelled}) + 1), '0') = '' AND NOT contains({spelled}, 'e')"
    is_plain = f"{spelled} = {text} OR {spelled} = {text} || '.0' OR (starts_with({text}, {spelled}) AND {rest})"
    digits = (
        f"length(translate(split_part(lower({text}), 'e', 1), '-.', '')) <= {_SURE_DIGITS if kind == 'DOUBLE' else 6}"
    )
    is_usual = f"abs({read}) BETWEEN {'1e-300 AND 1e300' if kind == 'DOUBLE' else '1e-30 AND 1e30'}"
    is_scientific = f"{_exponent(text)} = {_exponent(spelled)}"
    return (
        f"CASE WHEN NOT isfinite({read}) OR {text} = '-0' THEN NULL WHEN {is_plain} THEN {read} "
        f"WHEN {_matches(text, f'{_PLAIN}|{_SCIENTIFIC}')} AND (({digits} AND {is_usual}) OR {is_scientific}) THEN {read} END"
    )


def _exponent(number: str) -> str:
    """The number with its exponent in the shortest spelling."""
    return f"regexp_replace(lower({number}), 'e[+]?(-?)0*', 'e\\1')"


def _timestamp(text: str) -> str:
    """Of four digits of a year to at most six of a second; `T` or a space between day and time, and no zone."""
    is_same = f"{_spelled(text, 'TIMESTAMP')} = replace({text}, 'T', ' ') AND substr({text}, 5, 1) = '-'"
    return _where(f"({is_same}) OR {_matches(text, f'{_DAY}[ T]{_CLOCK}')}", _read(text, "TIMESTAMP"))


def _timestamptz(text: str) -> str:
    """A timestamp and its distance from UTC: the instant is kept, in the years 1 to 9999, and that there is a zone."""
    read, spelled = _read(text, "TIMESTAMPTZ"), f"replace(replace({text}, 'T', ' '), 'Z', '+00')"
    is_same = f"{_spelled(text, 'TIMESTAMPTZ')} = {spelled} AND substr({text}, 5, 1) = '-'"
    is_zoned = f"{_matches(text, f'{_DAY}[ T]{_CLOCK}{_ZONE}')} AND {read} {_YEARS}"
    return f"CASE WHEN {is_same} THEN {read} WHEN {is_zoned} THEN {read} END"


def _matches(text: str, pattern: str) -> str:
    return f"regexp_full_match({text}, '{pattern}')"
