"""What stored pipelines read, write and wait for, together with documents that are given: the circles, and what is
downstream.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from application.catalog.checks import ConnectionPlaces
from domain.errors import InvalidInputError
from domain.lineage.graph import Dataset, dataset, find_circle, reached_from
from domain.pipelines.spec import DEFAULT_CONNECTION, PipelineSpec
from domain.ports.records.unit_of_work import IUnitOfWork
from domain.ports.security import IQueryGuard
from domain.stores.connection import ConnectionSpec

Bodies = Mapping[str, Mapping[str, Any]]
"""Documents of one kind by their names."""
Reads = Mapping[str, Sequence[Dataset]]
"""What pipelines read, by their names."""

_PIPELINE = "a pipeline"  # No connection can have this name.
# No more of a stored pipeline is read: it may have thousands of other parts, and there may be thousands of pipelines.
_SOURCE = ("connection", "table", "query")
_DESTINATION = ("connection", "table")
_PATHS = (
    *(("source", name) for name in _SOURCE),
    *(("destination", name) for name in _DESTINATION),
    ("schedule", "after"),
)
_SHOWN = 12


@dataclass(frozen=True)
class Flows:
    """The pipelines that would be stored, by name, and what they read; connections that lead to one database have one
    name in them.
    """

    specs: Mapping[str, PipelineSpec]
    reads: Reads

    def refuse_circles(self, given: Sequence[str]) -> None:
        """Refuse pipelines that would move data in a circle, together with all others, or wait for each other.

        Raises:
            InvalidInputError: they would (`spec.circle`), or run after what is not there (`spec.after_unknown`).
        """
        circle = find_circle(flow for spec in self.specs.values() for flow in self._moved(spec))
        if circle is not None:
            tables = _shown([f"{connection}:{table}" for connection, table in circle])
            raise InvalidInputError(f"These pipelines would move data in a circle: {tables}.", code="spec.circle")
        for name in given:
            for waited_for in self.specs[name].after:
                if waited_for not in self.specs:
                    raise InvalidInputError(
                        f"{name} runs after {waited_for}, and there is no such pipeline.", code="spec.after_unknown"
                    )
        waits = find_circle(
            (("after", waited_for), ("after", spec.name)) for spec in self.specs.values() for waited_for in spec.after
        )
        if waits is not None:
            names = _shown([name for _, name in waits])
            raise InvalidInputError(f"These pipelines would start each other for ever: {names}.", code="spec.circle")

    def uses(self) -> list[tuple[Dataset, Dataset]]:
        """The flows with each pipeline as a place on the way, and from the pipelines that it runs after."""
        return [use for spec in self.specs.values() for use in self._used(spec)]

    def _moved(self, spec: PipelineSpec) -> Iterator[tuple[Dataset, Dataset]]:
        for source in self.reads[spec.name]:
            yield source, _target(spec)

    def _used(self, spec: PipelineSpec) -> Iterator[tuple[Dataset, Dataset]]:
        pipeline = (_PIPELINE, spec.name)
        yield pipeline, _target(spec)
        for source in self.reads[spec.name]:
            yield source, pipeline
        for name in spec.after:
            yield (_PIPELINE, name), pipeline


@dataclass(frozen=True)
class FlowReader:
    """Reads what is stored, and what queries name."""

    guard: IQueryGuard
    places: ConnectionPlaces

    async def specs(
        self, unit: IUnitOfWork, organization: str, connections: Bodies, pipelines: Bodies
    ) -> dict[str, PipelineSpec]:
        """What is stored and given of pipelines, as far as it says what they move."""
        stored = await unit.connections.parts(organization, [("kind",), ("options",)])
        known: dict[str, Mapping[str, Any]] = {
            name: {"connection": name, "kind": kind, "options": options} for name, (kind, options) in stored.items()
        }
        names = self._names([ConnectionSpec.from_document(body) for body in {**known, **connections}.values()])
        found = {
            name: _outline(name, parts) for name, parts in (await unit.pipelines.parts(organization, _PATHS)).items()
        }
        specs = {name: PipelineSpec.from_document(body) for name, body in {**found, **pipelines}.items()}
        return {name: _with_one_name(spec, names) for name, spec in specs.items()}

    async def relations(self, specs: Mapping[str, PipelineSpec]) -> dict[str, frozenset[str]]:
        """The relations that queries name, by their texts. Hundreds of long ones take a minute, so that nobody asks who
        holds what others wait for.
        """
        queries = {spec.source.query for spec in specs.values() if spec.source.query is not None}
        return {query: await self.guard.relations(query) for query in sorted(queries)}

    async def flows(self, specs: Mapping[str, PipelineSpec], known: Mapping[str, frozenset[str]]) -> Flows:
        """What pipelines read; where it is not `known`, the guard is asked."""
        reads: dict[str, Sequence[Dataset]] = {}
        for spec in specs.values():
            names = {str(spec.source.table)} if spec.source.table else set()
            if spec.source.query is not None:
                found = known.get(spec.source.query)
                names |= await self.guard.relations(spec.source.query) if found is None else found
            reads[spec.name] = [dataset(spec.source.connection, name) for name in names]
        return Flows(specs, reads)

    def _names(self, connections: Sequence[ConnectionSpec]) -> dict[str, str]:
        """For each connection the name of the first that leads to its database."""
        first = {self.places.database(None): DEFAULT_CONNECTION}
        for connection in sorted(connections, key=lambda each: each.name):
            first.setdefault(self.places.database(connection), connection.name)
        first.pop(None, None)
        return {each.name: first.get(self.places.database(each), each.name) for each in connections}


def downstream(kind: str, name: str, uses: Sequence[tuple[Dataset, Dataset]]) -> tuple[str, ...]:
    """Name the pipelines that read what this one writes, or run after it, directly or not."""
    reached = reached_from((_PIPELINE, name), uses) if kind == "pipeline" else set()
    names = sorted(name for place, name in reached if place == _PIPELINE)
    return (f"downstream: {', '.join(names)}",) if names else ()


def _outline(name: str, parts: Sequence[Any]) -> Mapping[str, Any]:
    """A document that says what a stored one says of what moves."""
    source, (*destination, after) = parts[: len(_SOURCE)], parts[len(_SOURCE) :]
    return {
        "pipeline": name,
        "source": dict(zip(_SOURCE, source, strict=True)),
        "destination": dict(zip(_DESTINATION, destination, strict=True)),
        "schedule": {"after": after},
    }


def _with_one_name(spec: PipelineSpec, names: Mapping[str, str]) -> PipelineSpec:
    source, destination = spec.source, spec.destination
    return replace(
        spec,
        source=replace(source, connection=names.get(source.connection, source.connection)),
        destination=replace(destination, connection=names.get(destination.connection, destination.connection)),
    )


def _target(spec: PipelineSpec) -> Dataset:
    return dataset(spec.destination.connection, str(spec.destination.table))


def _shown(circle: Sequence[str]) -> str:
    """A circle as a sentence has room for it."""
    if len(circle) > _SHOWN:
        half = _SHOWN // 2
        circle = [*circle[:half], f"{len(circle) - _SHOWN:,} more", *circle[-half:]]
    return " → ".join(circle)
