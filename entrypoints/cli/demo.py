"""The README's first command: real data through the whole thing, killed half-way, and proven complete."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Annotated, Any

import typer

from entrypoints.cli.again import this_program
from entrypoints.cli.context import Cli
from entrypoints.cli.output import say
from entrypoints.cli.render import print_table
from entrypoints.composition.clock import CLOCK

FLIGHTS = 336_776
WEATHER = 26_115
_MARKER = ".headrace-demo"
_KILL = "batch.before_commit:7:kill"
_FINGERPRINT = """
select count(*) as rows, sha256(string_agg(row_hash, '' order by row_hash)) as hash
from (select md5(to_json(content)::varchar) as row_hash
      from (select * exclude (_headrace_loaded_at, _headrace_run_id) from flights) as content)
"""


def register(app: typer.Typer) -> None:
    """Add the command to the root."""
    app.command()(demo)


def demo(
    serve: Annotated[bool, typer.Option("--serve", help="Leave headrace up running on the result.")] = False,
) -> None:
    """Run two real pipelines, kill one half-way, and prove that nothing was lost or doubled."""
    started = CLOCK.monotonic()
    folder = Path("headrace-demo").absolute()
    _prepare(folder)
    say(f"A project in {folder}: 336,776 flights and 26,115 weather rows of nycflights13, as CSV.")
    say()

    say("1. The flights go into DuckDB without interruption, for comparison.")
    whole = _run(folder, "flights", home=".headrace-uninterrupted")
    say("2. The same again, in another home, by a process that is killed in the middle of its seventh batch:")
    status = _killed(folder)
    say(f"   HEADRACE_FAILPOINT={_KILL} headrace run pipelines/flights.yaml → wait status {status} (SIGKILL)")
    half = _content(folder, ".headrace")
    say(f"   {half['rows']:,} rows are in the table, each batch with its checkpoint.")
    say("3. The next run takes over from the checkpoint.")
    flights = _run(folder, "flights", home=".headrace")
    say("4. The weather replaces its table in one step, after its checks; one wind of 1,048 mph is impossible.")
    weather = _run(folder, "weather", home=".headrace")

    expected = _content(folder, ".headrace-uninterrupted")
    found = _content(folder, ".headrace")
    _report(whole, flights, weather)
    print_table(
        ["table flights", "rows", "sha256 of the sorted rows"],
        [
            ["uninterrupted", expected["rows"], expected["hash"][:32] + "…"],
            ["killed and resumed", found["rows"], found["hash"][:32] + "…"],
        ],
        title="nothing lost, nothing doubled",
    )
    _check(expected, found, flights, weather)
    shutil.rmtree(folder / ".headrace-uninterrupted")
    say()
    say(f"Done in {CLOCK.monotonic() - started:.0f} s. Where to look next:")
    for hint in (
        f"cd {folder.name}",
        "headrace runs list                            the runs, and who resumed what",
        "headrace pipelines state flights              position and counts, kept beside the rows",
        "headrace preview pipelines/weather.yaml       the first rows after transforms",
        "headrace crashtest pipelines/flights.yaml     the same, killed at every step of the way",
        "headrace up                                   the API on http://127.0.0.1:8080 (key in .headrace/admin.key)",
    ):
        say(f"  {hint}")
    if serve:
        sys.stdout.flush()
        os.chdir(folder)
        os.execv(sys.executable, this_program("up"))


def _prepare(folder: Path) -> None:
    """Make the demo's folder anew; a folder that is not the demo's is left alone.

    Raises:
        InvalidInputError: the folder exists without the demo's marker.
        MissingExtraError: nycflights13 is not installed.
    """
    from domain.errors import InvalidInputError

    if folder.exists():
        if not (folder / _MARKER).exists():
            raise InvalidInputError(f"{folder} exists and is not the demo's; move it away.", code="demo.folder")
        shutil.rmtree(folder)
    shutil.copytree(Path(__file__).parent / "demo_files", folder)
    (folder / _MARKER).touch()
    data = folder / "data"
    data.mkdir()
    archive, weather = _package_file("flights.csv.zip"), _package_file("weather.csv")
    with zipfile.ZipFile(archive) as zipped:
        zipped.extract("flights.csv", data)
    shutil.copy(weather, data / "weather.csv")


def _package_file(name: str) -> Path:
    """Find a data file of nycflights13 without importing it: the package itself wants pandas."""
    from importlib.metadata import PackageNotFoundError, distribution

    from domain.errors import MissingExtraError

    try:
        return Path(str(distribution("nycflights13").locate_file(f"nycflights13/data/{name}")))
    except PackageNotFoundError as error:
        raise MissingExtraError("demo", "The demo's data") from error


def _command(
    folder: Path, home: str, *arguments: str, failpoint: str | None = None
) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
    environment["HEADRACE_HOME"] = home
    if failpoint is not None:
        environment["HEADRACE_FAILPOINT"] = failpoint
    return subprocess.run(
        this_program(*arguments),
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def _run(folder: Path, name: str, *, home: str) -> dict[str, Any]:
    from domain.errors import WorkFailedError

    done = _command(folder, home, "run", f"pipelines/{name}.yaml", "--json")
    if done.returncode != 0:
        raise WorkFailedError(f"The run of {name} ended with {done.returncode}: {done.stderr.strip()}", code="demo.run")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _killed(folder: Path) -> int:
    from domain.errors import WorkFailedError

    done = _command(folder, ".headrace", "run", "pipelines/flights.yaml", failpoint=_KILL)
    if done.returncode != -signal.SIGKILL:
        raise WorkFailedError(f"The run was to be killed, but ended with {done.returncode}.", code="demo.kill")
    return done.returncode


def _content(folder: Path, home: str) -> dict[str, Any]:
    """Count and hash the flights of a home, in this process, which wrote none of them."""
    cli = Cli({"home": str(folder / home)})
    return cli.call(lambda use_cases: use_cases.rehearsal.first_row(cli.principal, _FINGERPRINT))


def _report(whole: dict[str, Any], flights: dict[str, Any], weather: dict[str, Any]) -> None:
    rows = []
    for name, run in (("flights, uninterrupted", whole), ("flights, resumed", flights), ("weather", weather)):
        report = run["report"]
        counts = report["counts"]
        rows.append(
            [
                name,
                run["attempt"],
                counts["read"],
                counts["used"],
                counts["quarantined"],
                report["batches"],
                report["rows_per_second"],
            ]
        )
    print_table(
        ["pipeline", "attempt", "read", "used", "quarantined", "batches of it", "rows/s"], rows, title="what happened"
    )


def _check(expected: dict[str, Any], found: dict[str, Any], flights: dict[str, Any], weather: dict[str, Any]) -> None:
    """Hold the demo to its promise.

    Raises:
        WorkFailedError: a figure is not what it has to be.
    """
    from domain.errors import WorkFailedError

    flown, blown = flights["report"]["counts"], weather["report"]["counts"]
    is_right = (
        expected == found
        and found["rows"] == flown["used"]
        and flown["used"] + flown["quarantined"] == FLIGHTS
        and blown["read"] == WEATHER
        and blown["quarantined"] == 1
    )
    if not is_right:
        raise WorkFailedError("The resumed table is not the uninterrupted one. This is a bug.", code="demo.mismatch")
