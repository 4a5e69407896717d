"""What is not there, told without more of the name that was asked for than a name can have."""

from domain.errors import NotFoundError
from domain.pipelines.spec import NAME


def missing(kind: str, name: str, *, remedy: str = "") -> NotFoundError:
    """Say that there is no such pipeline or connection; what is no name at all is not repeated."""
    called = f"named {name}" if NAME.fullmatch(name) else "of that name (a letter a-z, then up to 47 of a-z, 0-9 and _)"
    return NotFoundError(f"There is no {kind} {called}{remedy}.", code=f"{kind}.not_found")
