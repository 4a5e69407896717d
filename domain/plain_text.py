"""What terminals and logs show of text that somebody else wrote: nothing in it moves a cursor, begins a line or turns
letters round.
"""

import unicodedata


def escaped(text: str) -> str:
    """Write what is neither printable nor a space as `\\uXXXX`, as JSON has it: controls, separators of lines, marks of
    direction.

    Line feeds stay, as whoever prints more than one line means them.
    """
    return "\n".join(line if line.isprintable() else _escaped(line) for line in text.split("\n"))


def in_one_line(text: str) -> str:
    """The same for what has to stay on its line."""
    return escaped(text).replace("\n", "\\n")


def _escaped(line: str) -> str:
    return "".join(character if _is_shown(character) else _written(ord(character)) for character in line)


def _is_shown(character: str) -> bool:
    return character.isprintable() or unicodedata.category(character) == "Zs"


def _written(number: int) -> str:
    if number < 0x10000:
        return f"\\u{number:04x}"
    number -= 0x10000
    return f"\\u{0xD800 + (number >> 10):04x}\\u{0xDC00 + (number & 0x3FF):04x}"
