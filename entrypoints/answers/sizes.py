"""Answers that stay within their size: lists end early, and long values are shown in part and say so."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

T = TypeVar("T")

_PIECE = 65_536
_LEAST = 32  # Less room than this for each member, and some of them are left out.


def size_of(value: Any) -> int:
    """The bytes that a value has as JSON."""
    return len(_dumped(value).encode(errors="replace"))


def _size_within(value: Any, most: int) -> int:
    """The bytes that a value has as JSON; of one that has more than so many, only that it has: nobody writes all of it
    for that.
    """
    room, waiting = most, [value]
    while waiting and room >= 0:
        part = waiting.pop()
        if isinstance(part, str):
            room -= len(part)
        elif isinstance(part, list | dict):
            room -= 2 * len(part)
            if room >= 0:
                waiting += part if isinstance(part, list) else [*part, *part.values()]
    return most + 1 if room < 0 else size_of(value)


def fitted(value: Any, most: int) -> Any:
    """A value of JSON as it is, or of the same kind with its longest parts cut, so that it has about so many bytes."""
    if not isinstance(value, str | list | dict) or _size_within(value, most) <= most:
        return value
    if isinstance(value, str):
        return _cut(value, most)
    if isinstance(value, list):
        shown = first_of(value, lambda item: item, most)
        return [*shown, _mark(len(shown), len(value), "items")] if len(shown) < len(value) else shown
    kept = dict(list(value.items())[: max(1, most // _LEAST)])
    more = {"…": _mark(len(kept), len(value), "members")} if len(kept) < len(value) else {}
    return {name: fitted(value[name], share) for name, share in _shares(kept, most).items()} | more


def first_of(items: Iterable[T], render: Callable[[T], Any], most: int) -> list[Any]:
    """Render items until they have so many bytes together: one at least, which is cut if it has more alone."""
    shown: list[Any] = []
    room = most
    for item in items:
        body = render(item)
        size = _size_within(body, max(room, 0)) + 1
        if shown and size > room:
            break
        shown.append(fitted(body, room))
        room -= size
    return shown


def cells(row: Mapping[str, Any], most: int) -> dict[str, Any]:
    """A row with its long values cut."""
    return {name: fitted(value, most) for name, value in row.items()}


def listed(body: dict[str, Any], name: str, most: int) -> dict[str, Any]:
    """A body with as many items of its one list as there is room for, and a note if these are not all."""
    items = body[name]
    shown = first_of(items, lambda item: item, most)
    return body if len(shown) == len(items) else {**body, name: shown, "note": not_all(len(shown), len(items), most)}


def not_all(shown: int, count: int, most: int) -> str:
    """The sentence for a list that ends early and cannot be gone on with."""
    return (
        f"Only the first {shown:,} of {count:,} are shown: all would be more than {most:,} bytes "
        "(HEADRACE_LIMITS__ANSWER_BYTES)."
    )


def written(body: Mapping[str, Any]) -> bytes:
    """A body as JSON, item by item, so that other threads get their turn."""
    parts = []
    for name, value in body.items():
        text = f"[{','.join(map(_dumped, value))}]" if isinstance(value, list) else _dumped(value)
        parts.append(f"{_dumped(name)}:{text}")
    return f"{{{','.join(parts)}}}".encode(errors="replace")


def written_list(items: Sequence[Any]) -> bytes:
    """The same for a list."""
    return f"[{','.join(map(_dumped, items))}]".encode(errors="replace")


def _dumped(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _cut(text: str, most: int) -> str:
    shown = text[:most].encode(errors="replace")  # No character is shorter than a byte.
    while (size := size_of(shown.decode(errors="ignore"))) > most:  # What JSON escapes is longer there.
        shown = shown[: min(len(shown) - 1, len(shown) * most // size)]
    return shown.decode(errors="ignore") + _mark(len(shown), _bytes_of(text), "bytes")


def _bytes_of(text: str) -> int:
    return sum(len(text[at : at + _PIECE].encode(errors="replace")) for at in range(0, len(text), _PIECE))


def _mark(shown: int, count: int, what: str) -> str:
    return f"… (cut: {shown:,} of {count:,} {what} are shown)"


def _shares(value: Mapping[str, Any], most: int) -> dict[str, int]:
    """What room each member gets: what it needs, or an equal part of what the smaller ones leave."""
    sizes = {name: _size_within(member, most) for name, member in value.items()}
    room = most - sum(size_of(name) + 2 for name in value)
    shares = dict.fromkeys(value, 0)
    for done, name in enumerate(sorted(sizes, key=lambda name: sizes[name])):
        shares[name] = min(sizes[name], max(_LEAST, room // (len(sizes) - done)))
        room -= shares[name]
    return shares
