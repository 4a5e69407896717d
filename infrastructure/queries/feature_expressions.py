"""Reads the expression of an on-demand feature: what DuckDB's parser makes of it, if all of it is of the subset."""

from collections.abc import Callable, Mapping, Sequence

from domain.errors import InvalidInputError
from domain.features.expressions import Call, Column, Constant, Expression, Kind
from infrastructure.queries.duckdb_parsing import Node, fold, parsed

_SELECT = {
    "type": "SELECT_NODE",
    "cte_map": {},
    "from_table": {"type": "EMPTY"},
    "aggregate_handling": "STANDARD_HANDLING",
}
_FUNCTION = frozenset({"class", "type", "function_name", "order_bys", "is_operator", "arguments", "qualified_name"})
_MOST_DEPTH = 50
_TYPES = {
    **dict.fromkeys(("bigint", "int8", "long"), Kind.INTEGER),
    **dict.fromkeys(("double", "float8"), Kind.NUMBER),
    **dict.fromkeys(("boolean", "bool"), Kind.BOOLEAN),
}
_ARITHMETIC = {
    "+": ("add_integers", "add"),
    "-": ("subtract_integers", "subtract"),
    "*": ("multiply_integers", "multiply"),
    "%": ("remainder_of_integers", "remainder"),
}
_OF_A_NUMBER = {
    "floor": "floor",
    "ceil": "ceiling",
    "ceiling": "ceiling",
    "round": "round",
    "sqrt": "square_root",
}
_COMPARISONS = {
    "COMPARE_EQUAL": "equal",
    "COMPARE_NOTEQUAL": "unequal",
    "COMPARE_LESSTHAN": "less",
    "COMPARE_LESSTHANOREQUALTO": "at_most",
    "COMPARE_GREATERTHAN": "greater",
    "COMPARE_GREATERTHANOREQUALTO": "at_least",
}
_CONJUNCTIONS = {"CONJUNCTION_AND": "and", "CONJUNCTION_OR": "or"}
_ALIKE = {"greatest": "greatest", "least": "least"}
_CASTS = {
    (Kind.INTEGER, Kind.NUMBER): "number_of_integer",
    (Kind.NUMBER, Kind.INTEGER): "integer_of_number",
    (Kind.BOOLEAN, Kind.INTEGER): "integer_of_boolean",
    (Kind.INTEGER, Kind.BOOLEAN): "boolean_of",
    (Kind.NUMBER, Kind.BOOLEAN): "boolean_of",
}
SUBSET = (
    "an on-demand feature is made of features and inputs, numbers, texts, true, false, null, + - * / // % ||, "
    "comparisons, in, between, is null, and, or, not, case, if, coalesce, nullif, greatest, least, abs, floor, ceil, "
    "round, sqrt, and casts to bigint, double and boolean"
)


def expression_of(text: str, columns: Mapping[str, Kind]) -> Expression:
    """Read an expression over columns of known kinds.

    Raises:
        QueryRefusedError: it does not parse, or is too large.
        InvalidInputError: there is something in it that is not of the subset, or of a kind that does not go there
            (`feature.expression`); or a column that is not there (`feature.expression_unknown`).
    """
    node = parsed(f"SELECT {text}")
    select = node.pop("select_list", [])
    if node != _SELECT or len(select) != 1 or "alias" in select[0]:
        raise _refused("a clause of a query")
    return _Reader({fold(name): Column(name, kind) for name, kind in columns.items()}).read(select[0], 0)


class _Reader:
    """Walks a tree; what it does not know it refuses."""

    def __init__(self, columns: Mapping[str, Column]) -> None:
        self._columns = columns
        self._ways: dict[str, Callable[[Node, int], Expression]] = {
            "COLUMN_REF": self._column,
            "CONSTANT": self._constant,
            "FUNCTION": self._function,
            "COMPARISON": self._comparison,
            "BETWEEN": self._between,
            "CONJUNCTION": self._conjunction,
            "OPERATOR": self._operator,
            "CASE": self._case,
            "CAST": self._cast,
        }

    def read(self, node: Node, depth: int) -> Expression:
        if depth > _MOST_DEPTH:
            raise _refused(f"more than {_MOST_DEPTH} things within each other")
        way = self._ways.get(str(node.get("class")))
        if way is None:
            raise _refused(str(node.get("type")).lower().replace("_", " "))
        return way(node, depth + 1)

    def _column(self, node: Node, _: int) -> Expression:
        names = node["column_names"]
        if len(names) != 1:
            raise _refused("a name with a dot")
        found = self._columns.get(fold(names[0]))
        if found is None:
            raise InvalidInputError(
                f"The expression names {str(names[0])[:60]!r}, which is no feature of the view and no input.",
                code="feature.expression_unknown",
            )
        return found

    def _constant(self, node: Node, _: int) -> Expression:
        literal = node.get("literal") or {}
        text = str(literal.get("text", ""))
        match literal.get("kind"):
            case "NULL_LITERAL":
                return Constant(None, Kind.NUMBER)
            case "BOOLEAN":
                return Constant(text == "true", Kind.BOOLEAN)
            case "STRING":
                return Constant(text, Kind.TEXT)
            case "INTEGER" if -(2**63) <= int(text) < 2**63:
                return Constant(int(text), Kind.INTEGER)
            case "INTEGER" | "NUMERIC":
                return Constant(float(text), Kind.NUMBER)
        raise _refused("a constant of that type")

    def _function(self, node: Node, depth: int) -> Expression:
        name = str(node["function_name"])
        if not node.keys() <= _FUNCTION or len(node["qualified_name"]["path"]) != 1:
            raise _refused(f"the function {name} with clauses or a schema")
        given = node.get("arguments", [])
        if any(argument.get("name") for argument in given):
            raise _refused("an argument with a name")
        arguments = [self.read(argument["expression"], depth) for argument in given]
        match name, arguments:
            case (("+" | "-"), [one]) if _is_number(one):
                return one if name == "+" else self._arithmetic("-", Constant(0, Kind.INTEGER), one)
            case (("+" | "-" | "*" | "%"), [left, right]):
                return self._arithmetic(name, left, right)
            case "/", [left, right]:
                return Call("divide", (_number(left), _number(right)), Kind.NUMBER)
            case "//", [left, right] if {left.kind, right.kind} == {Kind.INTEGER}:
                return Call("divide_whole", (left, right), Kind.INTEGER)
            case "||", [left, right]:
                return Call("join", (_text(left), _text(right)), Kind.TEXT)
            case "abs", [one]:
                is_integer = one.kind is Kind.INTEGER
                return Call("absolute_integer" if is_integer else "absolute", (_numeric(one),), one.kind)
            case _, [one] if name in _OF_A_NUMBER:
                return Call(_OF_A_NUMBER[name], (_number(one),), Kind.NUMBER)
            case _, [_, *_] if name in _ALIKE:
                alike = _alike(arguments)
                return Call(_ALIKE[name], tuple(alike), alike[0].kind)
            case "nullif", [_, _]:
                left, right = _alike(arguments)
                return Call("null_if", (left, right), left.kind)
            case "if", [condition, left, right]:
                left, right = _alike([left, right])
                return Call("case", (_truth(condition), left, right), left.kind)
        raise _refused(f"the function {name} with {len(arguments)} such arguments")

    def _arithmetic(self, name: str, left: Expression, right: Expression) -> Expression:
        of_integers, of_numbers = _ARITHMETIC[name]
        if left.kind is right.kind is Kind.INTEGER:
            return Call(of_integers, (left, right), Kind.INTEGER)
        return Call(of_numbers, (_number(left), _number(right)), Kind.NUMBER)

    def _comparison(self, node: Node, depth: int) -> Expression:
        operation = _COMPARISONS.get(node["type"])
        if operation is None:
            raise _refused(str(node["type"]).lower().replace("_", " "))
        left, right = _alike([self.read(node["left"], depth), self.read(node["right"], depth)])
        return Call(operation, (left, right), Kind.BOOLEAN)

    def _between(self, node: Node, depth: int) -> Expression:
        value, lower, upper = _alike([self.read(node[name], depth) for name in ("input", "lower", "upper")])
        bounds = (
            Call("at_least", (value, lower), Kind.BOOLEAN),
            Call("at_most", (value, upper), Kind.BOOLEAN),
        )
        return Call("and", bounds, Kind.BOOLEAN)

    def _conjunction(self, node: Node, depth: int) -> Expression:
        children = tuple(_truth(self.read(child, depth)) for child in node["children"])
        return Call(_CONJUNCTIONS[node["type"]], children, Kind.BOOLEAN)

    def _operator(self, node: Node, depth: int) -> Expression:
        children = [self.read(child, depth) for child in node["children"]]
        match node["type"]:
            case "OPERATOR_NOT":
                return Call("not", (_truth(children[0]),), Kind.BOOLEAN)
            case "OPERATOR_IS_NULL":
                return Call("is_null", (children[0],), Kind.BOOLEAN)
            case "OPERATOR_IS_NOT_NULL":
                return Call("is_not_null", (children[0],), Kind.BOOLEAN)
            case "COMPARE_IN":
                return Call("is_among", tuple(_alike(children)), Kind.BOOLEAN)
            case "OPERATOR_COALESCE":
                alike = _alike(children)
                return Call("coalesce", tuple(alike), alike[0].kind)
        raise _refused(str(node["type"]).lower().replace("_", " "))

    def _case(self, node: Node, depth: int) -> Expression:
        checks = node["case_checks"]
        conditions = [_truth(self.read(check["when_expr"], depth)) for check in checks]
        values = [self.read(check["then_expr"], depth) for check in checks]
        *values, otherwise = _alike([*values, self.read(node["else_expr"], depth)])
        parts = [part for pair in zip(conditions, values, strict=True) for part in pair]
        return Call("case", (*parts, otherwise), otherwise.kind)

    def _cast(self, node: Node, depth: int) -> Expression:
        child, name = self.read(node["child"], depth), str(node["type_expr"].get("type_name", ""))
        kind = _TYPES.get(fold(name))
        if kind is None:
            raise _refused(f"a cast to {name[:60].lower()}")
        return _cast(child, kind)


def _cast(child: Expression, kind: Kind) -> Expression:
    if child.kind is kind:
        return child
    if isinstance(child, Constant) and child.value is None:
        return Constant(None, kind)
    if (child.kind, kind) == (Kind.BOOLEAN, Kind.NUMBER):
        return _cast(_cast(child, Kind.INTEGER), kind)
    operation = _CASTS.get((child.kind, kind))
    if operation is None:
        raise _refused(f"a cast from {child.kind.lower()} to {kind.lower()}")
    return Call(operation, (child,), kind)


def _is_number(expression: Expression) -> bool:
    return expression.kind in (Kind.INTEGER, Kind.NUMBER)


def _numeric(expression: Expression) -> Expression:
    if not _is_number(expression):
        raise _refused(f"a {expression.kind.lower()} where a number is due")
    return expression


def _number(expression: Expression) -> Expression:
    return _cast(_numeric(expression), Kind.NUMBER)


def _text(expression: Expression) -> Expression:
    if isinstance(expression, Constant) and expression.value is None:
        return Constant(None, Kind.TEXT)
    if expression.kind is not Kind.TEXT:
        raise _refused(f"a {expression.kind.lower()} where a text is due")
    return expression


def _truth(expression: Expression) -> Expression:
    if isinstance(expression, Constant) and expression.value is None:
        return Constant(None, Kind.BOOLEAN)
    if expression.kind is not Kind.BOOLEAN:
        raise _refused(f"a {expression.kind.lower()} where true or false is due")
    return expression


def _alike(expressions: Sequence[Expression]) -> list[Expression]:
    """The same of one kind: integers beside numbers are numbers, NULL is of any."""
    kinds = {each.kind for each in expressions if not (isinstance(each, Constant) and each.value is None)}
    if not kinds:  # A NULL that was cast is of that kind, and any other of none.
        kinds = {each.kind for each in expressions} - {Kind.NUMBER}
    if kinds == {Kind.INTEGER, Kind.NUMBER}:
        kinds = {Kind.NUMBER}
    if len(kinds) > 1:
        raise _refused(" beside ".join(sorted(kind.lower() for kind in kinds)))
    kind = next(iter(kinds), Kind.NUMBER)
    return [_cast(each, kind) for each in expressions]


def _refused(what: str) -> InvalidInputError:
    return InvalidInputError(f"There is {what} in the expression: {SUBSET}.", code="feature.expression")
