"""Every mutant still fits the code and names a test that exists."""

from pathlib import Path

import pytest

from tests.faults.mutants import MUTANTS, ROOT, apply, named_test


@pytest.mark.parametrize("patch", MUTANTS, ids=lambda patch: patch.stem)
def test_mutant_applies_and_names_a_test(patch: Path) -> None:
    assert apply(patch, ROOT, dry=True)
    file, _, name = named_test(patch).partition("::")
    assert f"def {name.partition('[')[0]}(" in (ROOT / file).read_text()


def test_there_is_a_mutant_for_each_mechanism() -> None:
    assert {patch.stem for patch in MUTANTS} >= {
        "checkpoint_before_data",
        "no_fence",
        "fence_per_run",
        "begin_before_lock",
        "commit_in_finally",
        "ack_first",
    }
