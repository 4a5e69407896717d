"""`make fuzz MINUTES=30`: texts without end against the guards, each beside the engine itself.

Every text is made from the engine, the seed and its number alone, so a finding is tried again with
`python -m tests.security.fuzz --engine postgres --seed S --at N`. A worker that dies is a finding too.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path

from tests.security.fuzz_oracles import oracle, smallest
from tests.security.fuzz_texts import ENGINES, Texts
from tests.servers import PostgresServer

_SECONDS_A_TEXT = 180  # A step of thousands of columns takes ten of the processor, which may have other work.


@dataclass(frozen=True)
class Finding:
    """A text that a guard lets through and should not, or stumbles over."""

    engine: str
    seed: int
    number: int
    kind: str
    text: str
    smallest: str


@dataclass
class Hunt:
    """What came of it."""

    texts: int
    let_through: int
    findings: list[Finding]


async def hunt(
    engine: str,
    seed: int,
    folder: Path,
    server_url: str,
    *,
    goes_on: Callable[[int], bool],
    first: int = 0,
    begins: Callable[[int], object] = lambda _: None,
) -> Hunt:
    """Try texts from the first on while it goes on; one finding of each kind is made small."""
    texts, judging = Texts(engine, seed), oracle(engine, folder, server_url)
    found = Hunt(0, 0, [])
    kinds: set[str] = set()
    try:
        await judging.open()
        number = first
        while goes_on(number):
            begins(number)
            text = texts.text(number)
            kind = await asyncio.wait_for(judging.judge(text), _SECONDS_A_TEXT)
            if kind is not None:
                is_new = kind[:30] not in kinds
                small = await smallest(text, kind, judging.judge) if is_new else text
                kinds.add(kind[:30])
                found.findings.append(Finding(engine, seed, number, kind, text, small))
            number += 1
        found.texts, found.let_through = number - first, judging.let_through
    finally:
        await judging.close()
    return found


def _work(options: argparse.Namespace) -> None:
    """Be a worker: hunt, and write what was found where the number of each text is noted before it is tried."""
    ends = time.monotonic() + options.minutes * 60
    place = os.open(f"{options.folder}/number", os.O_CREAT | os.O_WRONLY, 0o600)
    found = asyncio.run(
        hunt(
            options.engine,
            options.seed,
            Path(tempfile.mkdtemp(dir=options.folder)),
            options.server,
            goes_on=(lambda n: n == options.at) if options.at is not None else (lambda _: time.monotonic() < ends),
            first=options.at if options.at is not None else options.first,
            begins=lambda number: os.pwrite(place, b"%020d" % number, 0),
        )
    )
    Path(options.folder, f"found-{options.first}.json").write_text(json.dumps(asdict(found)))


def _worker(
    options: argparse.Namespace, engine: str, folder: Path, first: int, minutes: float
) -> "subprocess.Popen[bytes]":
    at = ["--at", str(options.at)] if options.at is not None else []
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "tests.security.fuzz", "--worker", "--engine", engine, "--seed", str(options.seed)),
            *(
                "--folder",
                str(folder),
                "--server",
                options.server,
                "--first",
                str(first),
                "--minutes",
                str(minutes),
                *at,
            ),
        ]
    )


def _watch(options: argparse.Namespace, engine: str, folder: Path) -> Hunt:
    """Start a worker, and another from the next text on where one dies."""
    folder.mkdir()
    folder.chmod(0o755)
    ends, first, total = time.monotonic() + options.minutes * 60, 0, Hunt(0, 0, [])
    while True:
        worker = _worker(options, engine, folder, first, max(ends - time.monotonic(), 0) / 60)
        try:
            code: int | None = worker.wait((max(ends - time.monotonic(), 0)) + 3 * _SECONDS_A_TEXT)
        except subprocess.TimeoutExpired:
            worker.kill()
            code = worker.wait()
        if code == 0:
            found = json.loads((folder / f"found-{first}.json").read_text())
            total.texts += found["texts"]
            total.let_through += found["let_through"]
            total.findings += [Finding(**one) for one in found["findings"]]
            return total
        number = int((folder / "number").read_text())
        text = Texts(engine, options.seed).text(number)
        total.findings.append(Finding(engine, options.seed, number, f"the process ended with {code}", text, text))
        total.texts += number + 1 - first
        first = number + 1
        if time.monotonic() > ends or options.at is not None:
            return total


def _kind(finding: Finding) -> tuple[str, str]:
    return finding.engine, finding.kind[:30]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--engine", choices=ENGINES)
    parser.add_argument("--at", type=int, help="One text only, by its number.")
    parser.add_argument("--out", type=Path, default=Path("fuzz-findings.json"))
    parser.add_argument("--first", type=int, default=0, help=argparse.SUPPRESS)
    for name in ("--folder", "--server"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        _work(options)
        return 0
    server = PostgresServer()
    server.start()
    engines = (options.engine,) if options.engine else ENGINES
    try:
        options.server = f"postgresql://postgres@127.0.0.1:{server.port}"
        with tempfile.TemporaryDirectory(prefix="headrace-fuzz-") as folder:
            Path(folder).chmod(0o755)
            with ThreadPoolExecutor(len(engines)) as pool:
                found = list(pool.map(lambda engine: _watch(options, engine, Path(folder, engine)), engines))
    finally:
        server.stop()
    findings = [finding for one in found for finding in one.findings]
    for engine, one in zip(engines, found, strict=True):
        print(
            f"{engine}: seed {options.seed}, {one.texts:,} texts, {one.let_through:,} let through, "
            f"{len(one.findings)} findings"
        )
    if findings:
        options.out.write_text(json.dumps([asdict(finding) for finding in findings], indent=1))
    for (engine, kind), alike in groupby(sorted(findings, key=_kind), key=_kind):
        first, *others = alike
        print(f"{engine} {first.seed}/{first.number} and {len(others)} others: {kind}\n    {first.smallest[:300]!r}")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
