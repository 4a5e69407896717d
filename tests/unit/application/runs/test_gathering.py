"""One piece of work for all who ask at the same time."""

import asyncio
from collections.abc import Sequence
from operator import itemgetter

import pytest

from application.runs.gathering import Gathered
from domain.errors import UnavailableError


async def test_who_asks_while_it_is_busy_shares_the_next_piece_of_work() -> None:
    sets: list[list[int]] = []
    gate = asyncio.Event()

    async def work(items: Sequence[int]) -> Sequence[int]:
        sets.append(list(items))
        await gate.wait()
        return [item * 10 for item in items]

    gathered = Gathered(work, at_most=3)
    first = asyncio.create_task(gathered.ask(1))
    while not sets:
        await asyncio.sleep(0)
    rest = [asyncio.create_task(gathered.ask(number)) for number in (2, 3, 4, 5)]
    await asyncio.sleep(0)
    gate.set()

    assert await asyncio.gather(first, *rest) == [10, 20, 30, 40, 50]
    assert sets == [[1], [2, 3, 4], [5]]


async def test_what_is_to_be_kept_apart_never_shares_a_piece_of_work() -> None:
    sets: list[list[tuple[str, int]]] = []

    async def work(items: Sequence[tuple[str, int]]) -> Sequence[int]:
        sets.append(list(items))
        await asyncio.sleep(0)
        return [number for _, number in items]

    gathered = Gathered(work, apart=itemgetter(0), at_most=2)
    asked = [("a", 1), ("b", 2), ("a", 3), ("b", 4), ("a", 5)]

    assert await asyncio.gather(*map(gathered.ask, asked)) == [1, 2, 3, 4, 5]
    assert sets == [[("a", 1), ("a", 3)], [("b", 2), ("b", 4)], [("a", 5)]]


async def test_trouble_is_everybodys_who_shared_it_and_nobody_elses() -> None:
    calls = 0

    async def work(items: Sequence[int]) -> Sequence[int]:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise UnavailableError("away")
        return items

    gathered = Gathered(work)
    answers = await asyncio.gather(gathered.ask(1), gathered.ask(2), return_exceptions=True)

    assert [type(answer) for answer in answers] == [UnavailableError, UnavailableError]
    assert await gathered.ask(3) == 3


async def test_who_gives_up_waiting_leaves_the_others_their_answers() -> None:
    gate = asyncio.Event()

    async def work(items: Sequence[int]) -> Sequence[int]:
        await gate.wait()
        return items

    gathered = Gathered(work)
    impatient, patient = asyncio.create_task(gathered.ask(1)), asyncio.create_task(gathered.ask(2))
    await asyncio.sleep(0)
    impatient.cancel()
    gate.set()

    assert await patient == 2
    with pytest.raises(asyncio.CancelledError):
        await impatient
