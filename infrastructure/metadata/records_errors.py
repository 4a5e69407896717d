"""Why the platform's records cannot be used: what passes by itself, and what stays until somebody changes it."""

from sqlalchemy.exc import DBAPIError

from domain.errors import PlatformError, StoreRefusedError, StoreUnavailableError, UnavailableError
from infrastructure.descriptors import shortage
from infrastructure.postgres.poolers import ADVICE

# (words of SQLite's, asyncpg's or the system's error, code, sentence): the first that fits, and nothing else, is told.
_REFUSED = (
    (
        ("file is not a database", "file is encrypted"),
        "records.not_sqlite",
        "The file of the platform's records is not an SQLite file; move it away or name another home.",
    ),
    (
        ("malformed", "corrupt"),
        "records.corrupt",
        "The file of the platform's records is damaged: restore it from a backup.",
    ),
    (
        ("readonly database", "Read-only file system", "Permission denied", "read-only transaction"),
        "records.read_only",
        "The platform's records may not be written.",
    ),
    (
        ("unable to open database file", "Is a directory"),
        "records.not_openable",
        "The file of the platform's records cannot be opened: it is a folder, or its folder does not let this user.",
    ),
    (
        ("server requested a cleartext password",),
        "records.password_in_clear",
        "The database of the platform's records asks for the password in clear, and it is sent so under verified TLS "
        "only: use sslmode=verify-full and sslrootcert, or have the server ask for scram-sha-256.",
    ),
    (
        ("authentication method requirement",),
        "records.sign_in_method",
        "The database of the platform's records asks to be signed in to in a way that is not allowed, such as "
        "Kerberos.",
    ),
    (
        ("Name or service not known", "No address associated"),
        "records.host_unknown",
        "The host of the platform's records has a name that nobody knows.",
    ),
)
# A prepared statement that another session has, or has not.
_POOLED = ("42P05", "26000")
_REFUSED_STATES = {
    "28": (
        "records.sign_in",
        "The database of the platform's records refused to sign in: the user or its password is wrong.",
    ),
    "3D": ("records.database_missing", "The database of the platform's records does not exist."),
    "42501": ("records.permission", "The user of the platform's records may not do what is needed in that database."),
    "25006": (
        "records.read_only",
        "The database of the platform's records takes no writes: it is a standby, or read-only.",
    ),
}  # fmt: skip


def records_error(error: BaseException) -> PlatformError:
    """Turn the error of a driver into ours; its text stays in the cause."""
    text = str(getattr(error, "orig", None) or error)
    state = _state(error)
    short = shortage(error, is_why_untold="unable to open database file" in text)
    if short is not None:
        return short
    if "disk is full" in text or "No space left" in text or state == "53100":
        return StoreUnavailableError("The disk of the platform's records is full.", code="disk_full")
    if "database is locked" in text:
        return UnavailableError("The platform's records are locked by another process.", code="records.locked")
    for words, code, sentence in _REFUSED:
        if any(word in text for word in words):
            return StoreRefusedError(sentence, code=code)
    if state in _POOLED or "transaction blocks not allowed in statement pooling mode" in text:
        return records_pooled()
    for beginning, (code, sentence) in _REFUSED_STATES.items():
        if state.startswith(beginning):
            return StoreRefusedError(sentence, code=code)
    return UnavailableError("The platform's records cannot be reached.", code="records.unavailable")


def records_pooled() -> PlatformError:
    """Say that the records' database is not spoken to session by session."""
    return StoreRefusedError(f"The database of the platform's records {ADVICE}.", code="records.pooled")


def records_ahead(found: str | None) -> PlatformError:
    """Say that a newer program has written the records."""
    return StoreRefusedError(
        f"The platform's records are of schema {found}, which this version does not know: a newer one has written "
        "them. Run that version, or restore a backup.",
        code="records.ahead",
    )


def is_damaged(error: BaseException | None) -> bool:
    """Whether SQLite says that the file is none of its own, or broken."""
    return isinstance(error, DBAPIError) and any(
        word in str(error.orig) for words, *_ in _REFUSED[:2] for word in words
    )


def _state(error: BaseException) -> str:
    found: BaseException | None = error
    while found is not None:
        state = getattr(found, "sqlstate", None) or getattr(getattr(found, "orig", None), "sqlstate", None)
        if state:
            return str(state)
        found = found.__cause__
    return ""
