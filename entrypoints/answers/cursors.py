"""Cursors of pages: where the next page begins, of which list and in which organization, so that none is taken for
another's.
"""

import hashlib
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence

from domain.errors import InvalidInputError
from domain.ports.records.page import Page

_MARK_BYTES = 16
_PLACE = re.compile(r"[A-Za-z0-9_.:-]{1,100}")
_CODE = "request.cursor"
_NONE = "The cursor is none that a page of this list has given; begin again without one."
_LARGEST = 2**31 - 1
"""No number of ours is larger, and a database would refuse one."""


def cursor_of(organization: str, kind: str, place: Sequence[str] | None) -> str | None:
    """Write the place behind the last item of a page, if there is a next one."""
    if place is None:
        return None
    text = "~".join(place)
    return urlsafe_b64encode(_mark(organization, kind, text) + text.encode()).decode().rstrip("=")


def place_of(organization: str, kind: str, cursor: str | None, parts: int = 1) -> tuple[str, ...] | None:
    """Read what `cursor_of` wrote for the same list. The mark is no secret: who makes one up sees no more than their
    own list.

    Raises:
        InvalidInputError: it was written for another list, or by somebody else (`request.cursor`).
    """
    if cursor is None:
        return None
    try:
        content = urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4))
        place = tuple(content[_MARK_BYTES:].decode("ascii").split("~"))
    except ValueError:
        place = ()
    is_place = len(place) == parts and all(_PLACE.fullmatch(part) for part in place)
    if not is_place or cursor_of(organization, kind, place) != cursor:
        raise InvalidInputError(_NONE, code=_CODE)
    return place


def numbers_of(organization: str, kind: str, cursor: str | None, parts: int) -> tuple[int, ...] | None:
    """As `place_of`, of a list whose places are numbers."""
    place = place_of(organization, kind, cursor, parts)
    if place is None:
        return None
    if not all(part.isdecimal() for part in place):
        raise InvalidInputError(_NONE, code=_CODE)
    return tuple(min(int(part), _LARGEST) for part in place)


def single_place_of(organization: str, kind: str, cursor: str | None) -> str | None:
    """As `place_of`, of a list whose places have one part."""
    place = place_of(organization, kind, cursor)
    return place[0] if place else None


def following(organization: str, kind: str, page: Page) -> str | None:
    """The cursor of the page behind this one, of a list whose places have one part."""
    return cursor_of(organization, kind, (page.next_cursor,) if page.next_cursor is not None else None)


def _mark(organization: str, kind: str, text: str) -> bytes:
    return hashlib.sha256("\n".join((organization, kind, text)).encode()).digest()[:_MARK_BYTES]
