"""A unit of work in the scope of one organization: what names another is refused, what is another's is not there."""

import inspect
from datetime import timedelta
from typing import Any, cast

import pytest

from domain.errors import ScopeError, UnavailableError
from domain.events import Origin, RunQueued
from domain.identity.principal import Principal
from domain.identity.scope import PLATFORM, Scope
from domain.ports.records.unit_of_work import IUnitOfWork
from domain.runs.run import Finish, Run, RunState
from domain.runs.work import WorkKind
from infrastructure.metadata.records import SqlRecords
from infrastructure.scoping import ContextScopes
from tests.ports.loading import read_set
from tests.ports.test_unit_of_work import LEASE, ME, claimed, new_run, queued, records, stands

__all__ = ["records"]
ONE, TWO = Scope("one"), Scope("two")
PLACES = ("pipelines", "connections", "runs", "identity", "events", "audit", "followers")
OF_THEIRS = Principal("me", "one", frozenset())


def naming_one(method: Any) -> dict[str, Any] | None:
    """Arguments that name the organization `one`, where a method takes what names an organization."""
    parameters = inspect.signature(method).parameters
    known: dict[str, Any] = {
        "organization": "one",
        "slug": "one",
        "principal": OF_THEIRS,
        "deeds": [(OF_THEIRS, "do", "it")],
        "asked": [new_run()],
        "run": new_run(),
        "names": ["orders"] if "organization" in parameters else [("one", "orders")],
    }
    given = {name: known[name] for name in parameters if name in known}
    if not given or ("names" in given and len(given) == 1 and method.__name__ != "of"):
        return None
    for name, parameter in parameters.items():
        if name not in given and parameter.default is parameter.empty and parameter.kind != parameter.VAR_POSITIONAL:
            given[name] = {"limit": 1, "newest": 1, "document": {}, "after": None, "paths": [("a",)]}.get(name, "x")
    return given


async def refused(unit: IUnitOfWork) -> list[str]:
    """The methods that were asked about `one` and refused it."""
    found = []
    for place in PLACES:
        for name, method in inspect.getmembers(getattr(unit, place), inspect.iscoroutinefunction):
            given = None if name.startswith("_") else naming_one(method)
            if given is not None:
                with pytest.raises(ScopeError):
                    await method(**given)
                found.append(f"{place}.{name}")
    return found


@pytest.mark.clause("IUnitOfWork", 6)
async def test_what_names_another_organization_is_refused(records: SqlRecords) -> None:
    async with records.unit(TWO) as unit:
        asked = await refused(unit)
        with pytest.raises(ScopeError):
            await unit.events.add(RunQueued(Origin("one", WorkKind.PIPELINE.named("orders"), "r")))

        assert len(asked) > 30
        assert await unit.pipelines.get("two", "orders") is not None
    async with records.unit(PLATFORM) as unit:
        for organization in ("one", "two"):
            assert await unit.pipelines.get(organization, "orders") is not None


@pytest.mark.clause("IUnitOfWork", 6)
async def test_run_of_another_organization_is_not_found_by_its_id(records: SqlRecords) -> None:
    run = await queued(records)
    for scope, found in ((TWO, []), (ONE, [run.id]), (PLATFORM, [run.id])):
        async with records.unit(scope) as unit:
            due = await unit.runs.claimable(unrung_since=timedelta(0), limit=9)
            await unit.runs.stamp_rung([run.id])
            woken = await unit.runs.next_in_lanes([run.id])
            held = await unit.runs.claim_many([run.id], owner=ME, lease=LEASE)

        assert [[ring.run_id for ring in due], [ring.run_id for ring in woken], [each.id for each in held]] == [
            found
        ] * 3


@pytest.mark.clause("IUnitOfWork", 6)
async def test_claim_of_another_organization_cannot_be_written_under(records: SqlRecords) -> None:
    run = await queued(records)
    held = await claimed(records, run)
    assert held is not None

    async with records.unit(TWO) as unit:
        assert not await written(unit, held)
        await unit.commit()
    before = await stands(records, run)
    assert (before.state, before.reason, before.fence) == (RunState.RUNNING, None, held.fence)

    async with records.unit(ONE) as unit:
        assert len(await written(unit, held)) == 7
        await unit.commit()


async def written(unit: IUnitOfWork, held: Run) -> list[str]:
    """What could be written under a claim."""
    runs, key = unit.runs, (held.id, held.fence)
    done = {
        "read set": await runs.store_read_set(*key, read_set(name="x")),
        "renewed": await runs.renew(*key, lease=LEASE) is None,
        "progress": await runs.note_progress(*key, progress=1) is not None,
        "note": await runs.note(*key, reason="sealing"),
    }
    raised = await runs.raise_fence(*key, above=held.fence)
    done["raised"] = raised is not None
    done["released"] = await runs.release(held.id, raised or held.fence, reason="r")
    again = await runs.claim(held.id, owner=ME, lease=LEASE)
    end = Finish(held.id, again.fence if again else held.fence, RunState.SUCCEEDED, "r", None, None)
    done["finished"] = bool(await runs.finish_many([end]))
    return [name for name, is_done in done.items() if is_done]


async def test_scope_is_over_also_where_its_unit_cannot_be_closed() -> None:
    class Away:
        async def __aexit__(self, *_: object) -> None:
            raise UnavailableError("They restart.", code="records.unavailable")

    scopes = ContextScopes()
    with pytest.raises(UnavailableError):
        async with scopes.create_scope(ONE):
            scopes.unit_of_work(lambda _: cast(IUnitOfWork, Away()))

    with pytest.raises(ScopeError):
        scopes.current()
    async with scopes.create_scope(TWO):
        assert scopes.current() == TWO
