"""What a statement over a batch failed of: whether a step or a rule, and on which column, never on which value."""

import re

import duckdb

from domain.errors import PlatformError, WorkFailedError
from domain.ports.transformer import TransformPlan

TOO_LARGE = "transform.too_large"
_COLUMN = re.compile(r"when casting from source column (\S+)")
_TYPE = re.compile(r"\bto (?:type )?([A-Z][A-Z0-9_]*(?:\([0-9, ]+\))?)")


def batch_error(error: duckdb.Error, culprit: str) -> PlatformError:
    """Turn an error into ours. The driver's text would show the value, so of it only names are passed on."""
    if isinstance(error, duckdb.OutOfMemoryException):
        return WorkFailedError(f"{culprit} needs more memory than it may use.", code=TOO_LARGE)
    text = str(error).partition("\n")[0]
    if "according to format specifier" in text:
        return WorkFailedError(
            f"{culprit} failed on a text that strptime does not read by its format ({type(error).__name__}); "
            "try_strptime gives NULL instead, and coalesce(strftime(try_strptime(…), '%Y-%m-%d'), …) with a cast "
            "step behind it has such rows told by column and place.",
            code="transform.failed",
        )
    column, kind = _COLUMN.search(text), _TYPE.search(text)
    what = f"a value{f' of {column[1]}' if column else ''}"
    if isinstance(error, duckdb.ConversionException):
        what += f" that does not convert{f' to {kind[1]}' if kind else ''}"
    return WorkFailedError(
        f"{culprit} failed on {what} ({type(error).__name__}); TRY_CAST gives NULL instead.", code="transform.failed"
    )


def culprit(plan: TransformPlan, connection: duckdb.DuckDBPyConnection, steps: str | None) -> str:
    """Whether a step or a rule failed: where there are both, the steps' own query is tried alone."""
    if not (plan.deleted_when or any(rule.is_row_rule for rule in plan.rules)):
        return "A step"
    try:
        if plan.steps and steps is not None:
            connection.execute(steps).fetchall()
    except duckdb.Error:
        return "A step"
    return "A rule"
