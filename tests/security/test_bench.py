"""A child process answers what it is asked, within its memory and its time, and neither fails nor breaks into its
parent.
"""

import asyncio
import contextlib
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from application.runs.showing import said_to
from domain.errors import (
    FencedError,
    InvalidInputError,
    PlatformError,
    QualityRejectedError,
    SpecError,
    UnavailableError,
)
from domain.first_errors import FirstError
from domain.identity.principal import Principal, Role
from domain.quality.rules import OnViolation
from domain.stores.table import Column
from infrastructure.bench import answers, process
from infrastructure.bench.bench import Bench
from infrastructure.bench.process import ChildLimits
from infrastructure.bench.refusals import query_too_large
from tests.forked import executed
from tests.security import bench_work

_MODULES = ("tests.security.bench_work",)
_ONES = "select " + "1+" * 30_000 + "1"


@pytest.fixture(scope="module", autouse=True)
def _executed() -> Iterator[None]:
    """Here the start itself is tested."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(process, "execute", executed)
        yield


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    bench = Bench(ChildLimits(400, 60.0), query_too_large, modules=_MODULES)
    yield bench
    asyncio.run(bench.close())


@pytest.fixture
async def hasty() -> AsyncIterator[Bench]:
    bench = Bench(ChildLimits(400, 0.2), query_too_large, children=1, queue=1, modules=_MODULES)
    bench.warm()
    yield bench
    await bench.close()


def _wait_until(is_so: Callable[[], bool], seconds: float = 30) -> None:
    until = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.01)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with contextlib.suppress(FileNotFoundError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def test_values_come_back_as_they_are(bench: Bench) -> None:
    found = bench.call(bench_work.tree)

    assert found["columns"] == (Column("a", "int64"),)
    assert found["set"] == frozenset({"x"})
    assert found["on"] is OnViolation.FAIL
    assert [repr(value) for value in found["n"]] == ["Decimal('1.50')", str(2**70), "None"]
    for value in ("a\ud800\x00é", b"\x00\xff" * 1000, 1.5, True, [], (), {"a": {1: "x"}}, [[1], (2, [b""])]):
        assert bench.call(bench_work.echo, value) == value
        assert type(bench.call(bench_work.echo, value)) is type(value)


def test_one_child_is_kept_for_many_calls(bench: Bench) -> None:
    assert bench.call(bench_work.pid) == bench.call(bench_work.pid) != os.getpid()


def test_errors_of_ours_come_back_as_themselves(bench: Bench) -> None:
    with pytest.raises(SpecError, match="2 problems") as spec:
        bench.call(bench_work.many_problems)
    with pytest.raises(FencedError) as fenced:
        bench.call(bench_work.fenced)
    with pytest.raises(QualityRejectedError) as rejected:
        bench.call(bench_work.rejected)

    assert [problem.code for problem in spec.value.problems] == ["spec.value", "spec.other"]
    assert spec.value.code == "spec.invalid"
    assert fenced.value.fence == 7
    assert rejected.value.first_errors == [FirstError(ordinal=3)]


def test_a_bug_tells_its_kind_and_no_value(bench: Bench) -> None:
    with pytest.raises(PlatformError, match="KeyError") as raised:
        bench.call(bench_work.bug, "s3cret")

    assert raised.value.code == "internal"
    assert "s3cret" not in str(raised.value)
    with pytest.raises(PlatformError, match="TypeError"):
        bench.call(bench_work.loose)  # No frozen dataclass of ours.


_ATTACKS: dict[str, tuple[Callable[..., object], Any]] = {
    "a list": (bench_work.in_duckdb, "select list_transform(range(300000000), lambda x: x + 1)"),
    "nested doubling": (bench_work.nested, 40),
    "repeat": (bench_work.in_duckdb, "select length(repeat('x', 4000000000))"),
    "many texts": (bench_work.in_duckdb, "select string_agg(repeat('x', 1000000), '') from range(100000)"),
    "bytes": (bench_work.take, 1000),
    "a long answer": (bench_work.echo, b"x" * 150_000_000),
}


@pytest.mark.line("29")
@pytest.mark.parametrize("name", _ATTACKS)
def test_what_needs_too_much_memory_is_refused_and_the_child_replaced(bench: Bench, name: str) -> None:
    function, argument = _ATTACKS[name]
    before = bench.call(bench_work.pid)

    with pytest.raises(InvalidInputError, match=r"400 MB|100 MB|ended the process") as raised:
        bench.call(function, argument)

    assert raised.value.code == "query.too_large"
    assert bench.call(bench_work.pid) != before


def test_what_needs_little_is_done(bench: Bench) -> None:
    before = bench.call(bench_work.pid)

    assert bench.call(bench_work.in_duckdb, "select list_transform(range(3), lambda x: x + 1)") == [([1, 2, 3],)]
    assert bench.call(bench_work.nested, 10) == 1024
    assert bench.call(bench_work.in_duckdb, "select length(repeat('x', 4000))") == [(4000,)]
    assert bench.call(bench_work.take, 50) == 50 * 1024 * 1024
    assert bench.call(bench_work.parsed_by_postgres, "select 1+1+1; select 2") == 2
    assert len(bench.call(bench_work.echo, b"x" * 20_000_000)) == 20_000_000  # type: ignore[arg-type]
    assert bench.call(bench_work.pid) == before


@pytest.mark.line("11")
def test_a_parser_that_crashes_takes_nobody_with_it(bench: Bench) -> None:
    before = bench.call(bench_work.pid)

    with pytest.raises(InvalidInputError, match="ended the process") as raised:
        bench.call(bench_work.parsed_by_postgres, _ONES)

    assert raised.value.code == "query.too_large"
    assert bench.call(bench_work.pid) != before


@pytest.mark.parametrize("work", [bench_work.spin, bench_work.hold_in_c])
async def test_what_takes_too_long_is_refused_while_the_loop_goes_on(hasty: Bench, work: Callable[..., None]) -> None:
    before = await hasty.acall(bench_work.pid)
    arguments = [30] if work is bench_work.hold_in_c else []

    task = asyncio.create_task(hasty.acall(work, *arguments))
    turns = 0
    while not task.done():
        await asyncio.sleep(0.005)
        turns += 1

    with pytest.raises(InvalidInputError, match=r"longer than the 0.2 s") as raised:
        await task
    assert raised.value.code == "query.too_large"
    assert turns > 1
    assert await hasty.acall(bench_work.pid) != before
    assert not _is_alive(before)


def test_parsing_ends_by_the_time_that_it_works(bench: Bench) -> None:
    before = bench.call(bench_work.pid)

    with pytest.raises(InvalidInputError, match=r"longer than the 0.2 s") as raised:
        bench.within(0.2).call(bench_work.spin)

    assert raised.value.code == "query.too_large"
    assert bench.within(0.2).call(bench_work.hold, 0.4) != before  # Who waits for the processor does not work.


async def test_a_full_queue_is_told(hasty: Bench) -> None:
    calls = [asyncio.create_task(hasty.within(0.2).acall(bench_work.hold, 0.1)) for _ in range(3)]

    outcomes = await asyncio.gather(*calls, return_exceptions=True)

    busy = [outcome for outcome in outcomes if isinstance(outcome, UnavailableError)]
    assert [error.code for error in busy] == ["worker.busy"]
    assert len({outcome for outcome in outcomes if isinstance(outcome, int)}) == 1
    assert await hasty.acall(bench_work.hold, 0)  # There is room again.


async def test_what_may_take_long_leaves_room_for_what_does_not() -> None:
    bench = Bench(ChildLimits(400, 60.0), query_too_large, children=2, queue=6, modules=_MODULES)
    slow = [asyncio.create_task(bench.acall(bench_work.hold, 60)) for _ in range(10)]
    await asyncio.sleep(0)

    assert await asyncio.gather(*(bench.within(1).acall(bench_work.echo, n) for n in range(2))) == [0, 1]

    assert sum(task.done() for task in slow) == 4  # A quarter of the queue is not for them.
    for task in slow:
        task.cancel()
    await asyncio.gather(*slow, return_exceptions=True)
    await bench.close()


def _killing(bench: Bench, how: int, times: int) -> tuple[Callable[[str, int], str], list[int]]:
    """What ends the children that ask, so many of them."""
    asked = list[int]()

    def answers(question: str, times_two: int) -> str:
        [child] = bench._working
        asked.append(child.pid)
        if len(asked) <= times:
            os.kill(child.pid, how)
            _wait_until(lambda: not child.is_alive)
        return question * times_two

    return answers, asked


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
async def test_what_a_child_did_that_somebody_killed_is_done_by_another(bench: Bench, how: int) -> None:
    answers, asked = _killing(bench, how, 1)

    done = await bench.acall_answering(answers, bench_work.asked, "a")

    assert done == "aa"
    assert len(set(asked)) == 2


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
async def test_who_is_killed_twice_is_told_so_and_is_not_too_large(bench: Bench, how: int) -> None:
    answers, asked = _killing(bench, how, 2)

    with pytest.raises(UnavailableError, match="killed from outside") as raised:
        await bench.acall_answering(answers, bench_work.asked, "a")

    assert (raised.value.code, raised.value.retryable) == ("worker.killed", True)
    viewer = Principal("v", "o", frozenset([Role.VIEWER]))
    assert said_to(viewer, raised.value) == raised.value.message  # Nothing of it is anybody's data.
    assert len(set(asked)) == 2
    assert bench.call(bench_work.pid) not in asked


@pytest.mark.parametrize("how", [signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS])
async def test_who_crashes_does_so_once(bench: Bench, how: int) -> None:
    answers, asked = _killing(bench, how, 2)

    with pytest.raises(InvalidInputError, match="ended the process") as raised:
        await bench.acall_answering(answers, bench_work.asked, "a")

    assert raised.value.code == "query.too_large"
    assert len(asked) == 1


def test_a_child_killed_between_calls_is_not_noticed(bench: Bench) -> None:
    before = bench.call(bench_work.pid)
    os.kill(before, signal.SIGKILL)
    _wait_until(lambda: not _is_alive(before))

    assert bench.call(bench_work.pid) != before


async def test_a_caller_that_leaves_ends_the_child_that_works_for_it() -> None:
    bench = Bench(ChildLimits(400, None), query_too_large, children=1, modules=_MODULES)
    before = await bench.acall(bench_work.pid)
    task = asyncio.create_task(bench.acall(bench_work.spin))
    waiting = asyncio.create_task(bench.acall(bench_work.pid))
    await asyncio.sleep(0.05)

    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert await waiting != before
    assert not _is_alive(before)
    await bench.close()


async def test_a_caller_that_leaves_the_queue_is_let_go_at_once(hasty: Bench) -> None:
    works = asyncio.create_task(hasty.acall(bench_work.hold, 0.15))
    await asyncio.sleep(0.02)
    waits = asyncio.create_task(hasty.within(0.2).acall(bench_work.pid))
    await asyncio.sleep(0.02)

    waits.cancel()

    with pytest.raises(asyncio.CancelledError):
        await waits
    assert not works.done()
    assert await works == await hasty.acall(bench_work.pid)


async def test_closing_ends_all_children_and_their_calls() -> None:
    bench = Bench(ChildLimits(400, None), query_too_large, modules=_MODULES)
    bench.warm()
    calls = [asyncio.create_task(bench.within(60).acall(bench_work.spin)) for _ in range(3)]
    while len(bench.pids) < 2:
        await asyncio.sleep(0.01)
    pids = bench.pids

    await bench.close()

    codes = [error.code for error in await asyncio.gather(*calls, return_exceptions=True)]  # type: ignore[union-attr]
    assert codes == ["worker.busy"] * 3
    assert not any(map(_is_alive, pids))
    with pytest.raises(UnavailableError):
        bench.call(bench_work.pid)


@pytest.mark.parametrize("work", ["idle", "python", "c"])
def test_a_child_ends_with_its_parent_whatever_it_does(work: str) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-m", "tests.security.bench_parent", work], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    with parent:
        child = int(parent.stdout.readline())
        assert _is_alive(child)

        parent.kill()

    _wait_until(lambda: not _is_alive(child))


@pytest.mark.line("31")
def test_a_child_knows_nothing_of_its_parent(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_CANARY", "canary")
    monkeypatch.setenv("HEADRACE_DB_PASSWORD", "canary")
    with (tmp_path / "open").open("w") as file:
        os.set_inheritable(file.fileno(), True)
        before = bench.call(bench_work.pid)
        os.kill(before, signal.SIGKILL)
        _wait_until(lambda: not _is_alive(before))

        found = bench.call(bench_work.surroundings)

    assert "canary" not in json.dumps(found["environment"])
    assert {"PATH", "HOME", "SECRET_CANARY"}.isdisjoint(found["environment"])
    assert len(found["descriptors"]) <= 5  # The three, the connection, and the folder that is listed.
    assert found["session"] == found["pid"]
    assert found["core"] == (0, 0)
    assert found["folder"] == "/"


def test_a_child_writes_no_files(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(PlatformError, match="OSError"):
        bench.call(bench_work.write_file, str(tmp_path / "written"))

    assert (tmp_path / "written").read_text() == ""


def test_a_child_may_ask_only_where_an_answer_is_given(bench: Bench) -> None:
    def answer(question: str, times: int) -> str:
        if question == "no":
            raise InvalidInputError("not this", code="x.y")
        return question * times

    assert asyncio.run(bench.acall_answering(answer, bench_work.asked, "ab")) == "abab"
    with pytest.raises(InvalidInputError, match="not this") as raised:
        asyncio.run(bench.acall_answering(answer, bench_work.asked, "no"))
    assert raised.value.code == "x.y"
    with pytest.raises(PlatformError, match="nothing may be asked"):
        bench.call(bench_work.asked, "ab")


class _Opens:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch /tmp/headrace-was-here",)


_LIES = (
    pickle.dumps(_Opens()),
    b'{"object": ["subprocess", "Popen", {"args": "true"}]}',
    b'{"object": ["domain.errors", "InvalidInputError", {"message": "x"}]}',
    b'{"object": ["domain.stores.table", "re", {}]}',
    b'{"object": ["domain.stores.table", "Column", {"name": "a", "type": "int64", "more": 1}]}',
    b'{"object": ["domain.pipelines.not_there", "Column", {}]}',
    b'{"object": ["domain.stores.table", "Column.__init__", {}]}',
    b'{"object": ["infrastructure.bench.bench", "Bench", {}]}',
    b'{"object": ["application.catalog.documents", "PutDocument", {"kind": "a", "name": "b", "body": null}]}',
    b'{"enum": ["domain.quality.rules", "OnViolation", "__class__"]}',
    b'{"bytes": 7}',
    b'{"list": [], "tuple": []}',
    b"[1]",
    b"[" * 100_000,
    b"9" * 10_000,
    b"{}",
    b"\xff",
)


@pytest.mark.parametrize("lie", _LIES, ids=range(len(_LIES)))
def test_an_answer_makes_nothing_but_plain_values(lie: bytes) -> None:
    with pytest.raises(answers.UnreadableAnswerError):
        answers.read([lie])


@pytest.mark.parametrize("kind", ["Problem", "PlatformErrors", "Sequence", "__builtins__"])
def test_an_error_that_is_none_is_not_made(kind: str) -> None:
    with pytest.raises(answers.UnreadableAnswerError):
        answers.error_of_value({"kind": kind, "message": "", "code": "", "problems": (), "more": {}})
