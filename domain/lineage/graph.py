"""The graph of datasets that pipelines span, and the circles in it."""

from collections.abc import Iterable, Mapping, Sequence

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
    """Return the datasets of a circle, the first one repeated at the end, or None; however long the chains are."""
    targets = {source: sorted(found) for source, found in _targets(flows).items()}
    done: set[Dataset] = set()
    for start in sorted(targets):
        circle = _circle_from(start, targets, done)
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
    start: Dataset, targets: Mapping[Dataset, Sequence[Dataset]], done: set[Dataset]
) -> list[Dataset] | None:
    """A circle that is reached from somewhere, on ways that were not gone before; what was gone is `done`."""
    if start in done:
        return None
    way, places, ahead = [start], {start: 0}, [iter(targets.get(start, ()))]
    while ahead:
        node = next(ahead[-1], None)
        if node is None:
            ahead.pop()
            left = way.pop()
            del places[left]
            done.add(left)
        elif node in places:
            return [*way[places[node] :], node]
        elif node not in done:
            places[node] = len(way)
            way.append(node)
            ahead.append(iter(targets.get(node, ())))
    return None
