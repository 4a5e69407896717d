"""Whether what a plan makes of a row is about as large as the row, so that a run may make it in its own process."""

from sqlglot import exp

from domain.pipelines.steps import SqlStep
from domain.ports.transformer import TransformPlan
from infrastructure.sql import parse_query

_MOST_TEXT = 128
_MOST_USES = 4
_KEEPING = (
    exp.Select, exp.From, exp.Table, exp.TableAlias, exp.Where, exp.Star, exp.Alias, exp.Column, exp.Identifier, exp.Paren,
    exp.Literal, exp.Null, exp.Boolean, exp.And, exp.Or, exp.Not, exp.Is, exp.In, exp.Between, exp.EQ, exp.NEQ, exp.GT,
    exp.GTE, exp.LT, exp.LTE, exp.Add, exp.Sub, exp.Mul, exp.Div, exp.IntDiv, exp.Mod, exp.Neg, exp.Abs, exp.Round,
    exp.Coalesce, exp.Nullif, exp.Case, exp.If, exp.Lower, exp.Upper, exp.Trim, exp.Length, exp.Cast, exp.TryCast,
    exp.DataType, exp.DataTypeParam, exp.Like, exp.ILike,
)  # fmt: skip


def keeps_size(plan: TransformPlan) -> bool:
    """Look at each expression of users': few words of their own, no column many times, and nothing that multiplies."""
    steps = [step.sql for step in plan.steps if isinstance(step, SqlStep)]
    predicates = [rule.expression for rule in plan.rules if rule.expression is not None]
    predicates += [plan.deleted_when] if plan.deleted_when is not None else []
    texts = [*steps, *(f"SELECT (\n{predicate}\n) AS verdict FROM batch" for predicate in predicates)]
    growths = [_growth(text) for text in texts]
    product = 1
    for growth in growths:
        product *= growth
    return product <= _MOST_USES


def _growth(text: str) -> int:
    """How many times the widest column may be in the result; more than any bound for what is not known to keep sizes."""
    tree = parse_query(text, "duckdb")
    nodes = list(tree.walk())
    words = sum(len(node.name) for node in nodes if isinstance(node, exp.Literal))
    if words > _MOST_TEXT or not all(isinstance(node, _KEEPING) for node in nodes):
        return _MOST_USES + 1
    if any(
        isinstance(node, exp.DataType) and node.expressions and node.is_type("array", "struct", "map") for node in nodes
    ):
        return _MOST_USES + 1
    uses: dict[str, int] = {}
    for node in nodes:
        if isinstance(node, exp.Column | exp.Star):
            uses[node.name.lower()] = uses.get(node.name.lower(), 0) + 1
    stars = uses.pop("*", 0)
    return max([1, *uses.values()]) + stars
