"""House rule 11, run by `make check`: modules under 400 lines."""

import sys
from pathlib import Path

LIMIT = 400


def main() -> int:
    root = Path(__file__).parents[2]
    long = [
        (path.relative_to(root), count)
        for folder in ("domain", "application", "infrastructure", "entrypoints")
        for path in sorted((root / folder).rglob("*.py"))
        if (count := len(path.read_text().splitlines())) >= LIMIT
    ]
    for path, count in long:
        print(f"{path}: {count} lines, the limit is {LIMIT}")
    return 1 if long else 0


if __name__ == "__main__":
    sys.exit(main())
