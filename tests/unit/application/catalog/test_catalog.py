"""What is put is kept in revisions, and what would change is told before it does."""

from pathlib import Path

import pytest

from application.catalog.documents import PutDocument
from domain.errors import NotFoundError
from domain.identity.principal import Principal, Role
from entrypoints.documents.reading import read_text
from tests.e2e.inside import ME, inside

LANDING = "version: 1\nconnection: landing\nkind: files\noptions: {root: data}\n"
PIPELINE = "version: 1\npipeline: orders\nsource: {connection: landing, path: a.csv}\ndestination: {table: orders}\n"


def command(text: str) -> PutDocument:
    document = read_text(text, "doc", {})
    return PutDocument(document.kind, document.name, document.body)


async def test_document_gets_a_revision_for_each_change_and_none_without_one(project: Path) -> None:
    async with inside(project, HEADRACE_STORE__KIND="memory") as installation:
        catalog = installation.use_cases.catalog
        await catalog.put(ME, command(LANDING))
        for text in (PIPELINE, PIPELINE, PIPELINE.replace("a.csv", "b.csv")):
            await catalog.put(ME, command(text))

        assert (await catalog.get(ME, "pipeline", "orders")).revision == 2


async def test_plan_tells_what_apply_would_do_and_changes_nothing(project: Path) -> None:
    async with inside(project, HEADRACE_STORE__KIND="memory") as installation:
        catalog = installation.use_cases.catalog
        await catalog.put(ME, command(LANDING))
        await catalog.put(ME, command(PIPELINE.replace("orders", "old")))

        changes = await catalog.plan(ME, [command(LANDING), command(PIPELINE)], prune=True)

        told = {(change.kind, change.name): change.action for change in changes}
        assert told == {
            ("connection", "landing"): "keep",
            ("pipeline", "orders"): "create",
            ("pipeline", "old"): "delete",
        }
        with pytest.raises(NotFoundError):
            await catalog.get(ME, "pipeline", "orders")


async def test_document_that_is_deleted_is_gone_and_its_name_may_be_used_again(project: Path) -> None:
    async with inside(project, HEADRACE_STORE__KIND="memory") as installation:
        catalog = installation.use_cases.catalog
        await catalog.put(ME, command(LANDING))

        await catalog.delete(ME, "connection", "landing")

        with pytest.raises(NotFoundError):
            await catalog.delete(ME, "connection", "landing")
        await catalog.put(ME, command(LANDING))
        assert (await catalog.get(ME, "connection", "landing")).name == "landing"


async def test_nobody_sees_the_documents_of_another_organization(project: Path) -> None:
    other = Principal("somebody", "other", frozenset({Role.PLATFORM_ADMIN}))
    async with inside(project, HEADRACE_STORE__KIND="memory") as installation:
        catalog = installation.use_cases.catalog
        await catalog.put(ME, command(LANDING))

        with pytest.raises(NotFoundError):
            await catalog.get(other, "connection", "landing")
