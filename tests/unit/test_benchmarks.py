"""What `make bench` measures is what users have, not what makes tests quick."""

import pytest

from benchmarks.run import AS_USERS_HAVE_IT
from tests.places import in_memory
from tests.program import is_quick


def test_program_is_started_and_data_is_on_a_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in AS_USERS_HAVE_IT.items():
        monkeypatch.setenv(name, value)

    assert not is_quick()
    assert in_memory() is None
