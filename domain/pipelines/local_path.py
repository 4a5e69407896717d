"""Names of local files as connections may write them: relative, staying inside, and none that begins with a dot."""

import unicodedata
from functools import lru_cache


@lru_cache(maxsize=1024)
def folded(name: str) -> str:
    """A name as file systems compare it that ignore case, forms of a character, or characters that do not show."""
    shown = "".join(
        character for character in unicodedata.normalize("NFKC", name) if unicodedata.category(character) != "Cf"
    )
    return unicodedata.normalize("NFKC", shown.casefold())


def is_hidden(name: str) -> bool:
    """Say whether the name of a file or folder begins with a dot."""
    return name != "." and folded(name).startswith(".")


class PathAstrayError(ValueError):
    """A path leads out of where it belongs, or to what is hidden."""

    code = "path.forbidden"


def leads_astray(relative: str) -> bool:
    """Say whether a path or pattern leads elsewhere by its spelling alone, or to something hidden."""
    return (
        relative.startswith(("/", "~"))
        or any(ord(character) < 32 for character in relative)
        or any(is_hidden(part) for part in relative.split("/"))
    )
