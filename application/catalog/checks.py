"""What is checked of a document by itself, and for how long."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from domain.errors import InvalidInputError, Problem, UnavailableError
from domain.pipelines.dialing import DialRules, Place
from domain.pipelines.plan import choose_publishing
from domain.pipelines.spec import PipelineSpec
from domain.pipelines.steps import SqlStep
from domain.ports.secrets import ISecretProvider
from domain.ports.security import TOO_LARGE, Cost, IQueryGuard
from domain.stores.connection import ConnectionSpec

_MOST_TIMES = 5
"""How many times its seconds a document may be looked at, while the machine has little time for it."""
_PATHS = ("path", "root", "ssl_ca_cert")

Check = tuple[str, Callable[[], object | Awaitable[None]]]
"""Where in the document, and what refuses it."""


class ConnectionPlaces(Protocol):
    """Where connections lead, as far as their documents tell; opens nothing."""

    def check_path(self, path: str) -> None:
        """Raise `InvalidInputError` if connections may not reach a path."""

    def database(self, connection: ConnectionSpec | None) -> Hashable | None:
        """Give what is equal for connections to one database, None standing for the store of the settings."""


@dataclass(frozen=True)
class Checks:
    """Gathers the checks of a document."""

    guard: IQueryGuard
    secrets: Sequence[ISecretProvider]
    dialing: DialRules
    places: ConnectionPlaces

    def of_connection(self, body: Mapping[str, Any]) -> list[Check]:
        """What is checked of a connection."""
        providers = {provider.scheme: provider for provider in self.secrets}
        checks: list[Check] = []
        for option, reference in (body.get("secrets") or {}).items():
            scheme, _, name = reference.partition(":")
            if scheme in providers:
                checks.append((f"secrets.{option}", partial(providers[scheme].check, name)))
        options = body.get("options") or {}
        if "host" in options:
            place = Place(options["host"], options["port"], options["database"])
            checks.append(("options.host", partial(self.dialing.check_literal, place)))
        for name in _PATHS:
            if options.get(name):
                checks.append((f"options.{name}", partial(self.places.check_path, options[name])))
        return checks

    def of_pipeline(self, body: Mapping[str, Any], known: Mapping[str, ConnectionSpec]) -> list[Check]:
        """What is checked of a pipeline, of whose connections some are known."""
        spec = PipelineSpec.from_document(body)
        source = known.get(spec.source.connection)
        checks: list[Check] = [("destination.publish", lambda: choose_publishing(spec, ordered=True))]
        if spec.source.query is not None:
            checks.append(("source.query", partial(self.guard.check_source, spec.source.query, source)))
        for index, step in enumerate(spec.transform):
            if not isinstance(step, SqlStep):
                continue
            checks.append((f"transform.{index}.sql", partial(self.guard.check_transform, step.sql)))
        for index, rule in enumerate(spec.quality):
            if rule.expression is not None:
                checks.append((f"quality.{index}.sql", partial(self.guard.check_predicate, rule.expression)))
            if isinstance(rule.expected, str) and rule.expected != "source_count":
                checks.append((f"quality.{index}.expected", partial(self.guard.check_source, rule.expected, source)))
        if spec.destination.deleted_when is not None:
            checks.append(
                ("destination.deleted_when", partial(self.guard.check_predicate, spec.destination.deleted_when))
            )
        return checks


async def problems_of(document: str, checks: Sequence[Check], seconds: float, cost: Cost) -> list[Problem]:
    """Make the checks of a document one after the other, until one is too large or they cost more than `seconds`.

    Raises:
        UnavailableError: they cost less, and this machine left them no time (`worker.busy`).
    """
    problems: list[Problem] = []
    try:
        async with asyncio.timeout(seconds * _MOST_TIMES) as waiting:
            for place, check in checks:
                problem = await _problem(f"{document}: {place}", check)
                problems += [problem] if problem is not None else []
                if problem is not None and problem.code == TOO_LARGE:
                    break  # What follows might take as long.
                if cost.seconds > seconds:
                    problems.append(Problem(f"{document}: {place}", TOO_LARGE, _too_much(seconds)))
                    break
    except TimeoutError as error:
        if not waiting.expired():
            raise
        raise UnavailableError(
            f"Checking {document} got too little of this machine's time: try again when the machine has less to do.",
            code="worker.busy",
        ) from error
    return problems


def _too_much(seconds: float) -> str:
    return f"Checking the document takes longer than {seconds:g} s: give it fewer or smaller queries."


async def _problem(place: str, check: Callable[[], object | Awaitable[None]]) -> Problem | None:
    try:
        checked = check()
        if isinstance(checked, Awaitable):
            await checked
    except InvalidInputError as error:
        return Problem(place, error.code, error.message)
    return None
