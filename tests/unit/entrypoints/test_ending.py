"""What the command line says of a run that did not succeed is what is so."""

import pytest
import typer

from entrypoints.cli.ending import finish


@pytest.mark.parametrize(
    ("state", "reason", "error", "said", "code"),
    [
        ("running", "sealing", None, "its destination cannot be reached", 3),
        ("running", "sealing: store.locked", None, "store.locked", 3),
        ("running", "claimed", None, "another process", 3),
        ("queued", "stopped", None, "stopped at a checkpoint", 1),
        ("failed", "table.not_found", {"code": "table.not_found", "message": "m", "retryable": False}, "m", 1),
        (
            "failed",
            "store.sign_in",
            {"code": "store.sign_in", "message": "m", "retryable": False, "unavailable": True},
            "m",
            3,
        ),
    ],
)
def test_end_of_a_run_is_told_as_it_is(
    state: str, reason: str, error: object, said: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as left:
        finish({"id": "1", "state": state, "reason": reason, "error": error}, "orders", as_json=False)

    told = capsys.readouterr().err
    assert (said in told, left.value.exit_code) == (True, code), told
    assert ("cannot be reached" in told) == (reason == "sealing")
