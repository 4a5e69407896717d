"""How large an answer may become; the settings are called the same, below `limits`."""

from dataclasses import dataclass


@dataclass(frozen=True)
class AnswerLimits:
    """The bounds of what is answered at once: pages end early, and long values are shown in part."""

    answer_bytes: int = 16 * 1024 * 1024
    cell_bytes: int = 64 * 1024
