"""The work of a run is found by its kind, and there is somebody to find it for every kind."""

from pathlib import Path

import pytest

from application.runs.work import IWork, IWorks, WorksByKind
from domain.runs.run import Run, RunRequest, RunState
from domain.runs.work import WorkKind, WorkRef
from entrypoints.composition.container import build_container
from infrastructure.settings.sources import load_settings


class Asked(IWorks):
    def __init__(self) -> None:
        self.runs: list[Run] = []

    async def of(self, run: Run) -> IWork:
        self.runs.append(run)
        raise LookupError


@pytest.mark.parametrize("kind", WorkKind)
async def test_work_is_asked_of_who_knows_its_kind(kind: WorkKind) -> None:
    kinds = {each: Asked() for each in WorkKind}
    run = Run("r", "o", WorkRef(kind, "orders", 2), "main", RunState.RUNNING, RunRequest())

    with pytest.raises(LookupError):
        await WorksByKind(kinds).of(run)

    assert {each: asked.runs for each, asked in kinds.items() if asked.runs} == {kind: [run]}


def test_every_kind_of_work_is_known(tmp_path: Path) -> None:
    works = build_container(load_settings(root=tmp_path, environment={}).settings, tmp_path).use_cases.works()

    assert set(works.kinds) == set(WorkKind)
