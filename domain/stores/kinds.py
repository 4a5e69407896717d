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

    `dialect` says whose SQL its queries are, None where it has none. Several processes may have one that `is_shared`
    open. `secrets` are what its connections may refer to, and `extra` is what `pip install headrace[…]` brings for it.
    """

    name: StoreKindName
    dialect: Literal["postgres", "duckdb"] | None = None
    is_shared: bool = False
    secrets: tuple[str, ...] = ()
    extra: str | None = None

    @property
    def may_be_default(self) -> bool:
        """Whether the settings may choose it."""
        return self.name in get_args(DefaultKindName)


POSTGRES = StoreKind("postgres", dialect="postgres", is_shared=True, secrets=("password",), extra="postgres")
DUCKDB = StoreKind("duckdb", dialect="duckdb")
FILES = StoreKind("files", is_shared=True)
MEMORY = StoreKind("memory")

KINDS: dict[str, StoreKind] = {kind.name: kind for kind in (POSTGRES, DUCKDB, FILES, MEMORY)}
