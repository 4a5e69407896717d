"""Which columns of the rows land: what an earlier hop noted is replaced, what the table computes is left to it."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from domain.errors import InvalidInputError
from domain.pipelines.spec import DeleteMissing, DestinationSpec
from domain.ports.transformer import TransformPlan
from domain.stores.table import DELETED_AT, INTERNAL_PREFIX, LOADED_AT, RUN_ID, Column, TableSchema

_WANTED = ("json", "uuid")
_TRAVELLING = frozenset({LOADED_AT, RUN_ID, DELETED_AT})


@dataclass(frozen=True)
class LeftOut:
    """Columns, in lower case, that do not land: `replaced` by the run's own metadata, or `computed` by the table."""

    replaced: frozenset[str]
    computed: frozenset[str]

    @classmethod
    def of(cls, destination: DestinationSpec, existing: TableSchema | None) -> "LeftOut":
        """What a destination writes itself. Without metadata columns, an earlier hop's are columns like any other."""
        own = {LOADED_AT, RUN_ID} if destination.metadata_columns else set[str]()
        if destination.delete_missing is DeleteMissing.SOFT:
            own.add(DELETED_AT)
        computed = {column.name for column in existing.columns if column.is_computed} if existing else set[str]()
        if destination.normalizes:
            computed = {name.lower() for name in computed}
        return cls(frozenset(own), frozenset(computed))

    def kept(self, columns: Sequence[Column]) -> tuple[Column, ...]:
        """The columns that land."""
        return tuple(column for column in columns if not (self._replaces(column.name) or column.name in self.computed))

    def notes(self, columns: Sequence[Column]) -> tuple[str, ...]:
        """Say in words what is left out, of these columns."""
        replaced = [column.name for column in columns if self._replaces(column.name)]
        computed = [column.name for column in columns if column.name in self.computed]
        return (
            *([f"{', '.join(replaced)} of the source: replaced by this pipeline's own"] if replaced else []),
            *([f"{', '.join(computed)}: left out, as the table computes it"] if computed else []),
        )

    def check_key(self, key: Collection[str]) -> None:
        """Refuse to merge by what does not land.

        Raises:
            InvalidInputError: a column of the key is computed or replaced (`merge.key_computed`).
        """
        lost = [name for name in key if self._replaces(name) or name in self.computed]
        if lost:
            raise InvalidInputError(
                f"The key column {lost[0]} of the destination is written by the destination itself, so no row can be found "
                "by it; merge by a column that the rows bring.",
                code="merge.key_computed",
            )

    def _replaces(self, name: str) -> bool:
        return name.lower() in self.replaced


def retyped(
    existing: TableSchema, plan: TransformPlan, columns: Sequence[Column], key: Collection[str]
) -> tuple[TableSchema, bool]:
    """The table with the types that the rows have by themselves, and whether one with these takes its place.

    Types that rows never have by themselves, such as JSON for a text, stay as they are wanted. So does a table on which
    other things hang: its rows are exchanged, and values that do not fit are told by name.
    """
    named = dict(zip(plan.landing_names(c.name for c in columns), (c.type for c in columns), strict=True))
    found = []
    for column in existing.columns:
        kind = named.get(column.name) or named.get(column.name.lower() if plan.normalizes else column.name)
        is_wanted = column.type.startswith("native:") or (column.type in _WANTED and kind == "string")
        found.append(column if kind is None or is_wanted else replace(column, type=kind))
    if tuple(found) == existing.columns or not existing.may_be_rebuilt(key):
        return existing, False
    return replace(existing, columns=tuple(found)), True


def check_reserved(columns: Sequence[Column]) -> None:
    """Refuse names that Headrace gives to columns of its own while rows travel.

    Raises:
        InvalidInputError: there is one (`columns.reserved`).
    """
    for column in columns:
        name = column.name.lower()
        if name.startswith(INTERNAL_PREFIX) and name not in _TRAVELLING:
            raise InvalidInputError(
                f"The column {column.name} of the source has a name that belongs to Headrace; give it another one, or leave "
                "it out, in a query of the source.",
                code="columns.reserved",
            )
