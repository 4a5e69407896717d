"""Kills runs at random, again and again, and judges every copy: at failpoints, at random times, at system calls.

`make faults COUNT=1000` runs it long and writes docs/evidence/faults.json; the suite takes a sample.
"""

import json
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from tests.e2e.api import environment
from tests.e2e.projects import postgres_environment, write
from tests.faults import oracle
from tests.program import start_program

POINTS = (
    "claim.after_update",
    "dest.after_fence",
    "plan.after_store",
    "extract.mid_page",
    "batch.before_begin",
    "batch.after_checkpoint",
    "batch.mid_rows",
    "batch.before_commit",
    "batch.commit_sent",
    "batch.after_commit",
    "publish.before_swap",
    "publish.after_swap",
    "publish.before_commit",
    "publish.after_commit",
    "finish.before_state",
)
AT_A_TIME, AT_A_CALL = "any time", "any system call"
_MANY = ("extract.", "batch.")
_STRACE = (
    "strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=sendto,write,pwrite64,fsync",
    "-e", "inject=sendto,write,pwrite64,fsync:signal=SIGKILL:when={nth}",
)  # fmt: skip


@dataclass(frozen=True)
class HowToCopy:
    """How a copy is made, and by which key: rows share some, and one has NULL in a part of it.

    A plain one with two streams passes undecoded in Postgres, with one it stays in the database.
    """

    mode: str = "append"
    publish: str | None = None
    is_plain: bool = False
    streams: int = 2
    key: str = "id"


WAYS = (
    HowToCopy(),
    HowToCopy("merge"),
    HowToCopy(is_plain=True, key="flag"),
    HowToCopy(publish="run", key="grp, amount"),
    HowToCopy("merge", "run"),
    HowToCopy("replace", key="t"),
    HowToCopy(is_plain=True, streams=1),
    HowToCopy(publish="run", is_plain=True),
)


@dataclass
class Tally:
    """What one kind of kill did."""

    fired: int = 0
    killed: int = 0
    missing: int = 0
    doubled: int = 0
    recoveries: list[float] = field(default_factory=list)


@dataclass
class Victim:
    """A pipeline over the oracle's source in one store, run as a process of its own."""

    folder: Path
    store: str
    query: oracle.Query
    expected: oracle.Expected
    settings: dict[str, str]
    table: str = "landed"
    way: "HowToCopy" = field(default_factory=lambda: WAYS[0])
    ways: set["HowToCopy"] = field(default_factory=set)
    tallies: dict[str, Tally] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @property
    def records(self) -> Path:
        return self.folder / ".headrace/records.db"

    @property
    def killed(self) -> int:
        return sum(tally.killed for tally in self.tallies.values())

    def start(self, *, failpoint: str | None = None, prefix: tuple[str, ...] = ()) -> "subprocess.Popen[str]":
        extra = {"HEADRACE_FAILPOINT": failpoint} if failpoint else {}
        return start_program(
            "run", "pipelines/events.yaml", "--json",
            folder=self.folder, environment=environment(**self.settings, **extra), prefix=prefix,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def kill_once(self, kind: str, chance: random.Random) -> bool:
        """Start a run and kill it in the given way; True when it came to its end all the same."""
        tally = self.tallies.setdefault(kind, Tally())
        if kind == AT_A_TIME:
            process = self.start()
            try:
                process.wait(timeout=chance.uniform(0.3, 1.4))
            except subprocess.TimeoutExpired:
                process.kill()
        elif kind == AT_A_CALL:
            prefix = tuple(part.format(nth=chance.randint(1, 120)) for part in _STRACE)
            process = self.start(prefix=prefix)
        else:
            nth = chance.randint(1, 6) if kind.startswith(_MANY) else 1
            process = self.start(failpoint=f"{kind}:{nth}:kill")
        _, said = process.communicate(timeout=120)
        if process.returncode == -9:
            tally.fired += 1
            tally.killed += 1
            return False
        self._note(process.returncode, said)
        return process.returncode == 0

    def finish(self, kinds: list[str]) -> None:
        """Let the run come to its end, then judge; what is wrong counts against every kind of kill of this copy."""
        for _ in range(6):  # A run that was killed three times in one place is given up and asked for again (R4).
            died = time.time()
            process = self.start()
            _, said = process.communicate(timeout=120)
            if process.returncode == 0:
                break
            self._note(process.returncode, said)
        else:
            self.problems.append("the run did not come to its end")
        self.judge(kinds, self._recovery(died))

    def judge(self, kinds: list[str], recovery: float | None) -> None:
        ended = oracle.sqlite_query(self.records)("SELECT count(*) FROM runs WHERE state = 'succeeded'")[0][0]
        way = self.way
        expected = oracle.plainly(self.expected) if way.is_plain else self.expected
        verdict = oracle.judge(
            self.query, expected, self.table, has_cursor=way.mode != "replace", runs=int(ended), is_plain=way.is_plain
        )
        for kind in set(kinds):
            self.tallies[kind].missing += verdict.missing
            self.tallies[kind].doubled += verdict.doubled
            if recovery is not None:
                self.tallies[kind].recoveries.append(recovery)
        self.problems += verdict.problems
        broken = oracle.audit(oracle.sqlite_query(self.records))
        self.problems += [f"the records break {name}" for name in broken]

    def again(self, way: "HowToCopy") -> None:
        """Forget the copy and everything about it, and go on in another way."""
        self.way = way
        self.ways.add(way)
        oracle.forget(self.query, self.table)
        for name in ("records.db", "records.db-wal", "records.db-shm"):
            (self.folder / ".headrace" / name).unlink(missing_ok=True)
        text = oracle.pipeline(
            table=self.table,
            mode=way.mode,
            publish=way.publish,
            streams=way.streams,
            is_plain=way.is_plain,
            key=way.key,
        )
        write(self.folder, "pipelines/events.yaml", text)

    def _recovery(self, started: float) -> float | None:
        """Seconds from the start of the process that took over until it had the claim."""
        rows = oracle.sqlite_query(self.records)(
            "SELECT strftime('%s', max(at)) + (strftime('%f', max(at)) - strftime('%S', max(at))) "
            "FROM run_transitions WHERE reason = 'claimed'"
        )
        return round(float(rows[0][0]) - started, 3) if rows and rows[0][0] is not None else None

    def _note(self, code: int, said: str) -> None:
        is_expected = code == 0 or "[poison]" in said
        if not is_expected or "Traceback" in said:
            self.problems.append(f"exit {code}: {said.strip()[-300:]}")


def victim(folder: Path, store: str, url: str, *, rows: int = oracle.ROWS) -> Victim:
    """A project and a source, ready to be killed."""
    folder.mkdir(parents=True, exist_ok=True)
    write(folder, "headrace.toml", "[settings]\n")
    (folder / ".headrace").mkdir(exist_ok=True)
    query = oracle.postgres_query(url) if store == "postgres" else oracle.duckdb_query(folder / ".headrace/data.duckdb")
    expected = oracle.make_source(query, store=store, rows=rows)
    settings = postgres_environment(url) if store == "postgres" else {}
    made = Victim(folder, store, query, expected, settings)
    made.again(WAYS[0])
    return made


def kill_until(made: Victim, count: int, seed: int, *, with_strace: bool, kills_at_most: int = 24) -> Iterator[int]:
    """Kill `count` times; yields the number of kills after each copy that was judged."""
    chance = random.Random(seed)
    kinds = [*POINTS, *[AT_A_TIME] * 8, *([AT_A_CALL] * 2 if with_strace else [])]
    deck: list[str] = []
    way = 0
    while made.killed < count:
        made.again(WAYS[way % len(WAYS)])
        way += 1
        drawn: list[str] = []
        for _ in range(chance.randint(3, kills_at_most)):
            if not deck:  # Dealt like cards, so that every kind has its turn.
                deck = chance.sample(kinds, len(kinds))
            drawn.append(deck.pop())
        used: list[str] = []
        for kind in sorted(drawn, key=_stage):  # What comes late in a run is tried late, or nothing would be left.
            used.append(kind)
            if made.kill_once(kind, chance):
                break
        made.finish(used)
        yield made.killed


def _stage(kind: str) -> int:
    """Where in a run a kind of kill lies: before or during the load, at the publication, after it."""
    return 2 if kind.startswith("finish.") else 1 if kind.startswith("publish.") else 0


def table_of(made: Victim) -> list[str]:
    """The printed table: one line per kind of kill."""
    lines = [f"{'kill point':<24}{'fired':>7}{'killed':>8}{'missing':>9}{'doubled':>9}{'recovery s (median, max)':>27}"]
    for kind in (*POINTS, AT_A_TIME, AT_A_CALL):
        tally = made.tallies.get(kind)
        if tally is None:
            continue
        times = tally.recoveries
        recovery = f"{median(times):.2f}, {max(times):.2f}" if times else "-"
        lines.append(f"{kind:<24}{tally.fired:>7}{tally.killed:>8}{tally.missing:>9}{tally.doubled:>9}{recovery:>27}")
    missing = sum(tally.missing for tally in made.tallies.values())
    doubled = sum(tally.doubled for tally in made.tallies.values())
    lines.append(
        f"{made.store}: {made.killed} kills, {missing} missing, {doubled} doubled, {len(made.problems)} problems"
    )
    return lines


def evidence_of(made: Victim, seed: int) -> dict[str, object]:
    return {
        "store": made.store,
        "seed": seed,
        "kills": made.killed,
        "missing": sum(tally.missing for tally in made.tallies.values()),
        "doubled": sum(tally.doubled for tally in made.tallies.values()),
        "problems": made.problems,
        "points": {
            kind: {
                "fired": tally.fired,
                "killed": tally.killed,
                "missing": tally.missing,
                "doubled": tally.doubled,
                "recovery_seconds_median": round(median(tally.recoveries), 3) if tally.recoveries else None,
                "recovery_seconds_max": max(tally.recoveries, default=None),
            }
            for kind, tally in sorted(made.tallies.items())
        },
    }


def main() -> None:
    """One store in this process: `python -m tests.faults.killing STORE URL COUNT SEED FOLDER`."""
    store, url, count, seed, folder = sys.argv[1:6]
    made = victim(Path(folder), store, url)
    told = 0
    for killed in kill_until(made, int(count), int(seed), with_strace=shutil.which("strace") is not None):
        if killed - told >= 50:
            told = killed
            print(f"{store}: {killed} of {count} kills, problems: {made.problems}", file=sys.stderr, flush=True)
    print(json.dumps({"table": table_of(made), "evidence": evidence_of(made, int(seed))}))


if __name__ == "__main__":
    main()
