"""Python functions as transform steps: entry points of installed packages, or files of the project's
`python/` folder.
"""

import hashlib
import importlib.util
import inspect
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from domain.errors import InvalidInputError, PlatformError, WorkFailedError
from domain.stores.table import ORDINAL
from infrastructure.tabular.arrow import columns_of, conform
from infrastructure.threads import OneThread
from infrastructure.transforms.returned import Returnable

GROUP = "headrace.transforms"
_LOCAL = "local."


@dataclass(frozen=True)
class Hook:
    """A function that takes rows and gives rows, and where it comes from."""

    name: str
    function: Callable[[pa.Table], Any]
    provenance: dict[str, str]
    returnable: Returnable

    def call(self, rows: pa.Table, ordinals: pa.Array, batch: pa.Table) -> tuple[pa.Table, pa.Array]:
        """Run the function over what steps before it have made of a batch, with the rows' places in the column
        `_headrace_ordinal`.

        A result without that column has one row for each given one, in their order; one that has it may leave rows out
        or give several for one.

        Raises:
            WorkFailedError: the function raised, or its rows cannot be told apart (`transform.python`), or are far more
                than the batch (`transform.too_large`).
        """
        table = self._returned(rows.append_column(ORDINAL, ordinals), self.returnable.beside(batch))
        if ORDINAL not in table.column_names:
            if table.num_rows != rows.num_rows:
                raise WorkFailedError(
                    f"The Python step {self.name} gave {table.num_rows} rows for {rows.num_rows}: it keeps the column "
                    f"{ORDINAL}, which tells where each row comes from.",
                    code="transform.python",
                )
            return _travelling(table), ordinals
        try:
            places = pc.cast(table.column(ORDINAL), pa.int64()).combine_chunks()
            is_known = not places.null_count and pc.all(pc.is_in(places, value_set=ordinals), min_count=0).as_py()
        except pa.ArrowException:  # They are no numbers.
            is_known = False
        if not is_known:
            raise WorkFailedError(
                f"The Python step {self.name} gave rows that are none of those it was given.", code="transform.python"
            )
        return _travelling(table.drop_columns([ORDINAL])), places

    def _returned(self, given: pa.Table, most: Returnable) -> pa.Table:
        """Run the function; what it raises or gives is its own affair, be it an end of the program."""
        try:
            returned = self.function(given)
            table = returned if isinstance(returned, pa.Table) else pa.table(returned)
        except PlatformError:
            raise
        except BaseException as error:
            # What it says may hold values of rows, so only its type is passed on.
            raise WorkFailedError(
                f"The Python step {self.name} failed ({type(error).__name__}).", code="transform.python"
            ) from error
        try:
            table.validate()
            most.check(self.name, table, given.num_rows)
            table.validate(full=True)
        except pa.ArrowInvalid as error:
            raise WorkFailedError(
                f"The Python step {self.name} gave values that are none of their type, such as text that is no UTF-8.",
                code="transform.python",
            ) from error
        if repeated := [name for name, count in Counter(table.column_names).items() if count > 1]:
            raise WorkFailedError(
                f"The Python step {self.name} gave two columns named {min(repeated)}.", code="transform.python"
            )
        return table


def _travelling(table: pa.Table) -> pa.Table:
    """The columns in the form in which their types travel."""
    return conform(table, columns_of(table.schema))


class PythonHooks:
    """Finds functions by name. `allowed` None lets every installed entry point be used; `folder` is the project's, and
    `returnable` what they may give for a batch.
    """

    def __init__(
        self,
        *,
        allowed: Collection[str] | None = None,
        folder: Path | None = None,
        returnable: Returnable | None = None,
    ) -> None:
        self._allowed = allowed
        self._folder = folder
        self._returnable = returnable or Returnable()

    async def loaded(self, names: Iterable[str]) -> dict[str, Hook]:
        """Load functions, on a thread of their own: importing may take long, or not end.

        Raises:
            InvalidInputError: one is not there, not allowed, or no function (`transform.python_unknown`).
        """
        wanted = list(names)
        if not wanted:
            return {}
        thread = OneThread("python")
        try:
            return await thread.call(lambda: {name: self.load(name) for name in wanted})
        finally:
            thread.close()

    def load(self, name: str) -> Hook:
        """Load a function; blocking.

        Raises:
            InvalidInputError: it is not there, not allowed, or no function (`transform.python_unknown`).
        """
        if self._allowed is not None and name not in self._allowed:
            raise _unknown(name, "is not among transforms.python_allowed")
        function, package, version = self._local(name) if name.startswith(_LOCAL) else self._installed(name)
        if not callable(function):
            raise _unknown(name, "is no function")
        try:
            source = inspect.getsource(function)
        except (OSError, TypeError):
            source = ""
        digest = hashlib.sha256(source.encode()).hexdigest()
        provenance = {"name": name, "package": package, "version": version, "source_sha256": digest}
        return Hook(name, function, provenance, self._returnable)

    def _installed(self, name: str) -> tuple[Any, str, str]:
        found: list[EntryPoint] = list(entry_points(group=GROUP, name=name))
        if not found:
            raise _unknown(name, f"is no entry point of the group {GROUP}")
        try:
            function = found[0].load()
        except BaseException as error:
            raise _unknown(name, f"cannot be imported ({type(error).__name__})") from error
        package = found[0].dist
        return function, package.name if package else "", package.version if package else ""

    def _local(self, name: str) -> tuple[Any, str, str]:
        file, _, attribute = name.removeprefix(_LOCAL).partition(":")
        if self._folder is None:
            raise _unknown(name, "needs a project folder")
        path = self._folder / f"{file}.py"
        if not path.is_file() or not path.resolve().is_relative_to(self._folder.resolve()):
            raise _unknown(name, f"needs the file python/{file}.py in the project")
        # By its path and never through sys.path, so that no name of the project hides another module.
        spec = importlib.util.spec_from_file_location(f"headrace_local_{file}", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except BaseException as error:
            raise _unknown(name, f"cannot be imported ({type(error).__name__})") from error
        return getattr(module, attribute, None), "local", ""


def _unknown(name: str, why: str) -> InvalidInputError:
    return InvalidInputError(f"The Python step {name} {why}.", code="transform.python_unknown")
