"""The graph of datasets that pipelines span, and the circles in it."""

from collections.abc import Iterable, Mapping

Dataset = tuple[str, str]
"""Connection and table; the default schemas of stores are left out of the table's name."""

_DEFAULT_SCHEMAS = ("public.", "main.")


def dataset(connection: str, table: str) -> Dataset:
    """Name a dataset so that two spellings of one table are equal."""
    lowered = table.lower()
    for schema in _DEFAULT_SCHEMAS:
        lowered = lowered.removeprefix(schema)
    return connection, lowered


def find_circle(flows: Iterable[tuple[Dataset, Dataset]]) -> list[Dataset] | None:
    """Return the datasets of a circle, the first one repeated at the end, or None."""
    targets = _targets(flows)
    done: set[Dataset] = set()
    for start in sorted(targets):
        circle = _circle_from(start, targets, [], done)
        if circle is not None:
            return circle
    return None


def reached_from(start: Dataset, flows: Iterable[tuple[Dataset, Dataset]]) -> set[Dataset]:
    """Return every dataset that data of `start` flows into, on whatever path."""
    targets = _targets(flows)
    reached: set[Dataset] = set()
    waiting = [start]
    while waiting:
        found = targets.get(waiting.pop(), set()) - reached
        reached |= found
        waiting += found
    return reached


def _targets(flows: Iterable[tuple[Dataset, Dataset]]) -> dict[Dataset, set[Dataset]]:
    targets: dict[Dataset, set[Dataset]] = {}
    for source, target in flows:
        targets.setdefault(source, set()).add(target)
    return targets


def _circle_from(
    node: Dataset, targets: Mapping[Dataset, set[Dataset]], above: list[Dataset], done: set[Dataset]
) -> list[Dataset] | None:
    if node in above:
        return [*above[above.index(node) :], node]
    if node in done:
        return None
    for target in sorted(targets.get(node, ())):
        circle = _circle_from(target, targets, [*above, node], done)
        if circle is not None:
            return circle
    done.add(node)
    return None
