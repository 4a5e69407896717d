"""What is asked of a run is stored with it and shown to all who read: no door lets in what JSON cannot say."""

from pathlib import Path
from typing import Any

import pytest

from domain.errors import InvalidInputError
from domain.runs.run import LONGEST_PARAMETER, is_parameter
from entrypoints.cli.context import Cli
from entrypoints.cli.running import _typed
from tests.e2e.api import headrace

pytestmark = pytest.mark.line("3")
_DOCUMENT = """version: 1
pipeline: asked
source: {query: 'select cast(:n as text) as v', parameters: {n: 1}}
destination: {table: asked}
"""


@pytest.mark.parametrize(
    "value", [None, True, 0, -(2**63), 2**63 - 1, 1.5, -0.0, "", "é\u2028'; --", "x" * LONGEST_PARAMETER]
)
def test_values_that_json_has_may_be_asked_for(value: Any) -> None:
    assert is_parameter(value)


@pytest.mark.parametrize(
    "value",
    [
        *(float("nan"), float("inf"), -float("inf"), 2**63, -(2**63) - 1, 10**4000),
        *("\x00", "a\udcff", "\ud800", "x" * (LONGEST_PARAMETER + 1), b"x", [1], {"a": 1}),
    ],
)
def test_what_json_or_a_store_cannot_say_may_not(value: Any) -> None:
    assert not is_parameter(value)


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "[" * 100_000, "9" * 5_000, "[1]", "abc", '"a"'])
def test_what_is_no_number_on_the_command_line_is_text(text: str) -> None:
    assert _typed(text) == text


@pytest.mark.line("38")
def test_arguments_that_are_no_text_are_told_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "headrace.toml").write_text("[settings]\nstore.kind = 'memory'\n")
    (tmp_path / "asked.yaml").write_text(_DOCUMENT)
    for arguments, code, status in (
        (("run", "\udcff"), "argument.encoding", 2),
        (("run", "asked.yaml", "--param", "n=\udcff"), "run.parameter", 2),
    ):
        ended = headrace(tmp_path, *arguments)
        assert (ended.returncode, ended.stderr.count("\n")) == (status, 1), ended.stderr
        assert f"[{code}]" in ended.stderr


def test_a_name_that_is_too_long_is_that_of_no_file() -> None:
    with pytest.raises(InvalidInputError) as told:
        Cli().documents(Path("a" * 5000))
    assert told.value.code == "file.unreadable"
