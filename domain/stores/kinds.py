"""The kinds of stores: the one list of them, and what holds for every store of a kind."""

from dataclasses import dataclass
from typing import Literal, get_args

StoreKindName = Literal["postgres", "duckdb", "files", "memory"]
"""What a connection's document names."""
DefaultKindName = Literal["duckdb", "memory", "postgres"]
"""What the settings may choose for the store named `default`: one that can be written to."""


@dataclass(frozen=True)
class StoreKind:
    """What holds for every store of a kind.

    Several processes may have one that `is_shared` open; what is in one that `is_lasting` outlives its process.
    `secrets` are what its connections may refer to, and `extra` is what `pip install headrace[…]` brings for it.
    """

    name: StoreKindName
    is_shared: bool = False
    is_lasting: bool = True
    secrets: tuple[str, ...] = ()
    extra: str | None = None

    @property
    def may_be_default(self) -> bool:
        """Whether the settings may choose it."""
        return self.name in get_args(DefaultKindName)

    @property
    def has_one_process(self) -> bool:
        """Whether what it holds can be reached by the process alone that has it open."""
        return self.is_lasting and not self.is_shared


POSTGRES = StoreKind("postgres", is_shared=True, secrets=("password",), extra="postgres")
DUCKDB = StoreKind("duckdb")
FILES = StoreKind("files", is_shared=True)
MEMORY = StoreKind("memory", is_lasting=False)

KINDS: dict[str, StoreKind] = {kind.name: kind for kind in (POSTGRES, DUCKDB, FILES, MEMORY)}
