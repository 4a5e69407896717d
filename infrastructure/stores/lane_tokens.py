"""The tokens of take-overs."""

import secrets


def new_token() -> str:
    """What a take-over puts beside its fence; nobody else has the same."""
    return secrets.token_hex(16)
