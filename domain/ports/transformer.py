"""The port to whatever turns source rows into judged rows."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace

from domain.pipelines.steps import Step
from domain.ports.data_store import Batch, Conversions, JudgedBatch
from domain.quality.rules import Rule
from domain.stores.table import DELETED, ORDINAL, Column


@dataclass(frozen=True)
class TransformPlan:
    """What to do with each batch of a read set; picklable.

    `source` are the columns the transforms see. When `source_is_text` the batch arrives as strings, to be converted;
    those of the `guessed` columns only where the value stays the very one that was written. `target` are the
    destination's columns that already exist: values are converted to their types. `is_partial` says that columns which
    no row rule looks at are left out. `normalizes` puts names into the destination's case, after the rules. Of rows
    with the same `key` in one batch only the last is accepted, or all where rows are `replayed`; with a key, and where
    rows are `replayed`, each accepted one has its place in the batch as `_headrace_ordinal`. `deleted_when` is a
    predicate that adds the column `_headrace_deleted`.
    """

    source: tuple[Column, ...]
    steps: tuple[Step, ...] = ()
    rules: tuple[Rule, ...] = ()
    target: tuple[Column, ...] = ()
    source_is_text: bool = False
    is_partial: bool = False
    normalizes: bool = False
    key: tuple[str, ...] = ()
    deleted_when: str | None = None
    guessed: tuple[str, ...] = ()
    replayed: bool = False

    @property
    def beside(self) -> tuple[str, ...]:
        """What accepted rows have beside their columns."""
        there = {DELETED: self.deleted_when is not None, ORDINAL: self.replayed or bool(self.key)}
        return tuple(name for name, is_there in there.items() if is_there)

    @property
    def keeps_values(self) -> bool:
        """No step and no conversion: what is accepted is what was read, name by name."""
        target = {column.name: column.type for column in self.target}
        is_same = all(target.get(column.name, column.type) == column.type for column in self.source)
        names = [column.name for column in self.source]
        is_named = self.landing_names(names) == names
        is_unique = len({column.name.lower() for column in self.source}) == len(self.source)
        return is_same and is_named and is_unique and not (self.source_is_text or self.steps or self.deleted_when)

    @property
    def only_converts(self) -> bool:
        """Text comes in, and nothing is done to it but to convert it to the types of the source's columns."""
        target = {column.name: column.type for column in self.target}
        landing = self.landing_names(column.name for column in self.source)
        is_same = all(target.get(name, c.type) == c.type for name, c in zip(landing, self.source, strict=True))
        is_unique = len({column.name.lower() for column in self.source}) == len(self.source)
        changes = self.steps or self.key or self.deleted_when
        return self.source_is_text and is_same and is_unique and not changes

    def landing_name(self, name: str) -> str:
        """The name of a column at the destination: the one it has there in another case, else in lower case."""
        [found] = self.landing_names([name])
        return found

    def landing_names(self, names: Iterable[str]) -> list[str]:
        """As `landing_name`, of many: of thousands, each by itself would be looked for among thousands."""
        if not self.normalizes:
            return list(names)
        there: dict[str, str] = {}
        for column in self.target:
            there.setdefault(column.name.lower(), column.name)
        return [there.get(name.lower(), name.lower()) for name in names]

    def of_columns(self, names: Sequence[str]) -> "TransformPlan":
        """The same rules over some of the columns only: those that rules look at."""
        return replace(
            self,
            source=tuple(column for column in self.source if column.name in names),
            target=tuple(column for column in self.target if column.name in names),
            is_partial=True,
        )


class IPreparedTransform(ABC):
    """A compiled transform with one engine instance and one thread of its own."""

    @property
    @abstractmethod
    def columns(self) -> Sequence[Column]:
        """The columns of accepted rows, in order."""

    @property
    def hooks(self) -> Sequence[Mapping[str, str]]:
        """The Python functions it calls: name, package, version and the hash of the source."""
        return ()

    @abstractmethod
    async def apply(self, batch: Batch) -> JudgedBatch:
        """Convert, transform and judge one batch.

        Raises:
            QualityRejectedError: a row rule with `on_violation: fail` was violated.
            WorkFailedError: a row has no value in a key column (`merge.key_null`).
        """

    async def measured(self, batch: Batch) -> JudgedBatch:
        """As `apply`, for whom the rows themselves do not matter: there may be none."""
        return await self.apply(batch)

    @abstractmethod
    def empty(self) -> JudgedBatch:
        """Judge no rows: what a stream without rows commits."""


class ITransformer(ABC):
    """Row-wise transforms and row rules.

    1. Each source row is counted once: used, filtered, quarantined or failed.
    2. A refused row is kept as it was read, with its place and reason.
    3. A value that does not convert without loss makes its row `failed`; nothing is rounded or wrapped.
    4. A transform that is not row-wise is refused (`transform.not_row_wise`), as the result would depend on batches.
    5. No transform reaches files, sockets, settings or other relations than `batch`.
    6. A rule's values and patterns are data, never text of a statement; patterns are RE2 and match the whole value.
    7. Of the rows of one key in a batch the last is accepted, the others are counted as deduplicated. Of what is
       replayed all are: which of them may land, the destination knows.
    8. A step that gives two columns one name, letter case aside, is refused: neither is taken for the other.
    """

    @abstractmethod
    def prepare(self, plan: TransformPlan) -> AbstractAsyncContextManager[IPreparedTransform]:
        """Compile a plan.

        Raises:
            InvalidInputError: a step or rule is wrong, with the column or expression named.
        """

    @abstractmethod
    async def looks_at(self, plan: TransformPlan) -> tuple[str, ...]:
        """Name the source columns whose values the rules of a plan without steps look at, in the source's order."""

    @abstractmethod
    def conversions(self, plan: TransformPlan) -> Conversions:
        """Say how a destination converts the text of a plan that `only_converts`, as the plan would."""

    @abstractmethod
    def text_batch(self, names: Sequence[str], rows: Sequence[Sequence[str | None]]) -> Batch:
        """Make a batch of text columns from rows, as a text source would give it."""
