"""The pause before the next try doubles up to its longest, whatever a document and a run's history ask for."""

from datetime import timedelta

import pytest

from application.runs.settle import pause_before_retry
from domain.runs.run import Run, RunRequest, RunState
from domain.runs.work import WorkKind, WorkRef


@pytest.mark.parametrize(
    ("backoff", "retries", "least", "most"),
    [
        (timedelta(seconds=2), 0, timedelta(seconds=2), timedelta(seconds=2.5)),
        (timedelta(seconds=2), 3, timedelta(seconds=16), timedelta(seconds=20)),
        (timedelta(seconds=2), 46, timedelta(minutes=10), timedelta(minutes=10)),
        (timedelta(seconds=2), 100_000, timedelta(minutes=10), timedelta(minutes=10)),
        (timedelta.max, 1, timedelta(minutes=10), timedelta(minutes=10)),
    ],
)
def test_pause_grows_to_its_longest(backoff: timedelta, retries: int, least: timedelta, most: timedelta) -> None:
    run = Run(
        "r",
        "o",
        WorkRef(WorkKind.PIPELINE, "p", 1),
        "main",
        RunState.RUNNING,
        RunRequest(),
        requested_by="me",
        retries=retries,
    )

    assert least <= pause_before_retry(run, backoff) <= most
