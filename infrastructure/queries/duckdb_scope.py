"""What names stand for while a tree is walked: the relations of a FROM, common tables, and the parameters
of lambdas.
"""

from dataclasses import dataclass, field

from infrastructure.queries.duckdb_sizes import NOTHING, ROW, Size, largest


@dataclass(frozen=True)
class Shape:
    """How large a column of a relation may be, and all of them together."""

    cell: Size
    row: Size
    parts: int = 0
    """Of how many queries it is made, where it is a common table: the engine may plan it anew for each of its names."""


STORED = Shape(ROW, ROW)
EMPTY = Shape(NOTHING, NOTHING)


@dataclass
class Scope:
    """One SELECT, within what is around it."""

    outer: "Scope | None" = None
    common: dict[str, Shape] = field(default_factory=dict)
    relations: list[tuple[str, Shape]] = field(default_factory=list)
    lambdas: dict[str, Size] = field(default_factory=dict)
    only: str | None = None
    """The one column that has a size, where the part of one is looked for."""
    shadowed: frozenset[str] | None = frozenset()
    """Names that are columns of some relation for certain or perhaps, though relations have them too; None for all."""

    def inner(self) -> "Scope":
        """A scope of a query within this one."""
        return Scope(self, shadowed=self.shadowed)

    def with_lambda(self, names: list[str], sizes: list[Size]) -> "Scope":
        """The same scope within a lambda."""
        parameters = dict(zip(names, sizes, strict=True))
        lambdas = {**self.lambdas, **parameters}
        return Scope(self.outer, self.common, self.relations, lambdas, self.only, self.shadowed)

    def common_table(self, name: str) -> Shape | None:
        """The common table of a name, if it is one."""
        scope: Scope | None = self
        while scope is not None:
            if name in scope.common:
                return scope.common[name]
            scope = scope.outer
        return None

    def column(self, path: list[str]) -> Size:
        """How large the column of a name may be; any column of the relations where the name does not tell which."""
        if path[0] in self.lambdas:
            return self.lambdas[path[0]]
        if self.only is not None:
            return ROW if self.only in path[:2] else NOTHING
        if len(path) > 1 and self.shadowed is not None and path[0] not in self.shadowed:
            qualified = [shape.cell for name, shape in self._all() if name == path[0]]
            if qualified:
                return largest(qualified)
        if len(path) == 1 and any(name == path[0] for name, _ in self._all()):
            return self.row()  # Perhaps the whole of it.
        return largest(shape.cell for _, shape in self._all())

    def row(self) -> Size:
        """How large any relation's row may be."""
        return largest(shape.row for _, shape in self._all())

    def _all(self) -> list[tuple[str, Shape]]:
        found: list[tuple[str, Shape]] = []
        scope: Scope | None = self
        while scope is not None:
            found += scope.relations
            scope = scope.outer
        return found
