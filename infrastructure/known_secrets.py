"""The values of secrets that this process was given, so that no text that leaves it has one of them."""

import base64
import json
import re
import threading
from urllib.parse import quote, quote_plus

# Taken out wherever it stands, a shorter one would take the words of people apart.
_SHORTEST = 6
_MOST_REMEMBERED = 1_000
_PERCENT = re.compile("%[0-9A-F]{2}")


class _Live:
    """Values of secrets that this process has been given, the newest of them."""

    def __init__(self) -> None:
        self._values: dict[str, set[str]] = {}
        self._lock = threading.Lock()
        self.pattern: re.Pattern[str] | None = None

    def remember(self, value: str) -> None:
        if len(value) < _SHORTEST or value in self._values:
            return
        with self._lock:
            self._values[value] = _forms(value)
            while len(self._values) > _MOST_REMEMBERED:
                del self._values[next(iter(self._values))]
            forms = set[str]().union(*self._values.values())
            # Longest first: one may begin with another. Those that follow each other are hidden as one.
            one = "|".join(map(re.escape, sorted(forms, key=lambda form: (-len(form), form))))
            self.pattern = re.compile(f"(?:{one})+")


_live = _Live()


def remember(value: str) -> str:
    """Take a secret's value out of every text from now on, however it is quoted; return it."""
    _live.remember(value)
    return value


def pattern() -> re.Pattern[str] | None:
    """What finds each known secret, however it is quoted; None while none is known."""
    return _live.pattern


def _forms(value: str) -> set[str]:
    """How it may stand in a text: as it is, in a URL, in base64, and as languages write a text, twice over too."""
    encoded = {base64.b64encode(value.encode()).decode(), base64.urlsafe_b64encode(value.encode()).decode()}
    # As most write it, as paths have it, as forms do, and as SQLAlchemy shows an address.
    quoted = {quote(value, safe=""), quote(value), quote_plus(value), quote(value, safe=" +")}
    quoted |= {_PERCENT.sub(lambda found: found[0].lower(), form) for form in quoted}
    written = _literals(value)
    written |= {twice for once in written for twice in _literals(once)}
    forms = {value, *encoded, *(form.rstrip("=") for form in encoded), *quoted, *written}
    return {form for form in forms if len(form) >= _SHORTEST}


def _literals(text: str) -> set[str]:
    """A text as Python, JSON and SQL write it, without the quotes around it."""
    backslashed = text.replace("\\", "\\\\")
    return {
        text.encode("unicode_escape").decode(),
        repr(text)[1:-1],
        ascii(text)[1:-1],
        repr(text.encode())[2:-1],
        json.dumps(text)[1:-1],
        json.dumps(text, ensure_ascii=False)[1:-1],
        backslashed.replace("'", "\\'"),
        text.replace("'", "''"),
    }
