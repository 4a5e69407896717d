"""`name=value,name=value`, the values percent-encoded: how OpenTelemetry writes attributes and headers."""

from urllib.parse import unquote


def pairs(text: str) -> dict[str, str]:
    """Read it.

    Raises:
        ValueError: it is written otherwise; the text is not shown.
    """
    found = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        name, separator, value = item.partition("=")
        if not separator or not name.strip():
            raise ValueError("is written name=value,name=value")
        found[name.strip()] = unquote(value.strip())
    return found
