"""A deadline is told as what it is, whatever is said by what it has interrupted."""

import asyncio
from datetime import timedelta

import pytest

from application.loads.patience import Patience
from domain.errors import PlatformError, StoreRefusedError, WorkFailedError

pytestmark = pytest.mark.line("29")


def _refused() -> PlatformError:
    return StoreRefusedError("the server sent too much", code="store.answer_too_large")


async def test_what_a_store_says_of_being_interrupted_is_a_timeout() -> None:
    with pytest.raises(WorkFailedError) as caught:
        async with Patience(timedelta(seconds=0.01)).within():
            try:
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                raise _refused() from None

    assert caught.value.code == "query.timeout"


async def test_what_it_says_before_stays() -> None:
    with pytest.raises(StoreRefusedError):
        async with Patience(timedelta(seconds=30)).within():
            raise _refused()
