"""docs/benchmarks.md, made from the results that `make bench` keeps."""

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parents[1] / "docs/benchmarks.md"

_PARTS = {
    "copying": "Moving data",
    "memory": "Memory and time at two sizes",
    "running": "Running things",
    "starting": "Starting",
    "telemetry": "What telemetry costs",
    "walk": "The way of one trigger through the code",
}
_HEAD = """# Benchmarks

Made by `make bench`; do not edit. Every line is ours beside a peer or a limit, measured in one run on one machine. The
ratios
are what counts: absolute figures belong to the machine. Times are medians of several rounds, the first one thrown away;
peers that
take a minute run once.

`orders` has ten columns (bigint key, int, numeric, two texts, timestamptz, date, bool, double, nullable text), 717 MB
at 5,000,000 rows,
and is copied within one Postgres. The psql pipe writes the same columns as ours, the two of metadata too. "The same
copy without
checkpoints" reads the same ranges of the key and lands them in one transaction that remembers nothing.
"""


def page() -> str:
    """Write the page from the results."""
    parts = [_HEAD]
    for name, title in _PARTS.items():
        path = RESULTS / f"{name}.json"
        if path.exists():
            parts.append(_part(title, json.loads(path.read_text())))
    return "\n".join(parts)


def _part(title: str, found: dict[str, Any]) -> str:
    versions = ", ".join(f"{package} {version}" for package, version in found["versions"].items())
    lines = [f"## {title}", "", f"{found['date']}, {found['machine']}; {versions}.", ""]
    lines += ["| measure | ours | beside | ratio | goal |", "|---|---|---|---|---|"]
    for row in found["results"]:
        figures = " | ".join(f"{row[name]:,.3f}" for name in ("ours", "beside"))
        lines.append(f"| {row['measure']} | {figures} | {row['ratio']:.2f} | {row['goal']} |")
    return "\n".join(lines) + "\n"
