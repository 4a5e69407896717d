"""Whoever makes previews leaves some places to others, and who makes dry runs nearly all."""

import asyncio
from contextlib import AsyncExitStack
from datetime import timedelta

import pytest

from application.pipelines.turns import Turns
from domain.errors import UnavailableError
from domain.identity.principal import Principal

pytestmark = pytest.mark.line("29")
_ONE, _OTHER, _THIRD = (Principal(name, "default", frozenset()) for name in ("one", "other", "third"))


async def _refused(turns: Turns, caller: Principal, *, is_dry: bool = False) -> str:
    with pytest.raises(UnavailableError) as caught:
        async with turns.one(caller, is_dry=is_dry):
            pass
    assert caught.value.code == "worker.busy"
    return caught.value.message


async def test_one_caller_leaves_places_to_others_and_waits_for_its_own() -> None:
    turns = Turns(8, timedelta(seconds=0.01))
    async with AsyncExitStack() as stack:
        for _ in range(5):
            await stack.enter_async_context(turns.one(_ONE, is_dry=False))
        async with turns.one(_ONE, is_dry=False):
            assert "6 previews that you asked for" in await _refused(turns, _ONE)
            async with turns.one(_OTHER, is_dry=False), turns.one(_THIRD, is_dry=False):
                assert "8 previews are being made already, 1 of them for you" in await _refused(turns, _OTHER)
        async with turns.one(_ONE, is_dry=False):
            pass


async def test_who_waits_for_its_own_goes_on_when_one_is_done() -> None:
    turns, done = Turns(4, timedelta(seconds=30)), list[str]()

    async def preview() -> None:
        async with turns.one(_ONE, is_dry=False):
            await asyncio.sleep(0)
            done.append("one")

    await asyncio.gather(*(preview() for _ in range(4)))

    assert len(done) == 4


async def test_dry_runs_have_a_quarter_of_the_places_and_one_caller_has_one() -> None:
    turns = Turns(8, timedelta(seconds=0.01))
    async with turns.one(_ONE, is_dry=True):
        assert "that you asked for" in await _refused(turns, _ONE, is_dry=True)
        async with turns.one(_ONE, is_dry=False), turns.one(_OTHER, is_dry=True):
            assert "dry runs of others" in await _refused(turns, _THIRD, is_dry=True)
            async with turns.one(_THIRD, is_dry=False):
                pass
    async with turns.one(_ONE, is_dry=True), turns.one(_THIRD, is_dry=True):
        pass


async def test_of_large_rows_there_is_one_preview_and_callers_take_turns() -> None:
    turns, order, may_end = Turns(8, timedelta(seconds=30)), list[str](), asyncio.Event()

    async def large(caller: Principal) -> None:
        async with turns.large(caller):
            order.append(caller.subject)
            await may_end.wait()

    tasks = []
    for caller in (_ONE, _ONE, _ONE, _OTHER):
        tasks.append(asyncio.create_task(large(caller)))
        await asyncio.sleep(0)
    for _ in range(5):
        await asyncio.sleep(0)
    assert order == ["one"]
    may_end.set()
    await asyncio.gather(*tasks)
    assert order.index("other") == 1
    hasty = Turns(8, timedelta(seconds=0.01))
    async with hasty.large(_ONE):
        with pytest.raises(UnavailableError, match="other large rows"):
            async with hasty.large(_OTHER):
                pass
