"""How large an answer may become; the settings are called the same, below `limits`."""

from dataclasses import dataclass

_PAGE_CHARACTERS = 1024 * 1024
LARGE_CHARACTERS = 256 * 1024
"""One run of more takes its turn to be read, as a page does: dozens at a time would keep all others waiting."""


@dataclass(frozen=True)
class AnswerLimits:
    """The bounds of what is answered at once: pages end early, and long values are shown in part."""

    answer_bytes: int = 16 * 1024 * 1024
    cell_bytes: int = 64 * 1024

    @property
    def page_characters(self) -> int:
        """What a page has of documents or runs, within what any answer may have: each may be large, and who only reads
        must not make a process hold hundreds, nor read them while all others wait.
        """
        return min(_PAGE_CHARACTERS, self.answer_bytes)
