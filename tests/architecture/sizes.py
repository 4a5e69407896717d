"""House rule 11, run by `make check`: modules under 400 lines, functions of at most 50, lines of at most 120 characters
(which ruff does not ask of a line that is one long text).
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

MODULE_LINES = 400
FUNCTION_LINES = 50
LINE_CHARACTERS = 120
# What a migration does is a list of statements, and is never changed again.
_STATEMENTS = "infrastructure/metadata/migrations/versions"


def too_long(root: Path) -> Iterator[str]:
    """Say of each module, function and line that is too long where it is and how long."""
    for folder in ("domain", "application", "infrastructure", "entrypoints"):
        for path in sorted((root / folder).rglob("*.py")):
            name, text = path.relative_to(root), path.read_text()
            if (count := len(text.splitlines())) >= MODULE_LINES:
                yield f"{name}: {count} lines, the limit is {MODULE_LINES}"
            for number, line in enumerate(text.splitlines(), start=1):
                if len(line) > LINE_CHARACTERS:
                    yield f"{name}:{number}: {len(line)} characters, the limit is {LINE_CHARACTERS}"
            if not str(name).startswith(_STATEMENTS):
                yield from (f"{name}:{found}" for found in _long_functions(text))


def _long_functions(text: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            count = (node.end_lineno or node.lineno) - node.lineno + 1
            if count > FUNCTION_LINES:
                yield f"{node.lineno}: {node.name} has {count} lines, the limit is {FUNCTION_LINES}"


def main() -> int:
    found = list(too_long(Path(__file__).parents[2]))
    print("\n".join(found), end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
