"""The rules of `domain.features.coherence` hold in every order of events, and each of them is needed."""

import os
from dataclasses import replace
from typing import Any

import pytest

from domain.features.coherence import Mark, Marker, Put, Verdict, is_written
from tests.models.cache_protocol import Faults, Rules, World, judge

IS_WHOLE = bool(os.environ.get("HEADRACE_TEST_MODELS"))
PUSH_A, PUSH_B, FILL_A, FILL_B = ("push", 0), ("push", 1), ("fill", 0), ("fill", 1)
LOAD, LOAD_B, MOVE, COOL = ("load", (0, 1), None), ("load", (1,), None), ("move",), ("cool",)
AGAIN = ("load", (0, 1), 0)
"""Another process takes the first load over, which may be frozen or dead."""
RESTORED = Faults(snapshots=1, restores=1)

SMALL = {
    "two pushes": World((PUSH_A, PUSH_B), Faults(2, 1, 1)),
    "a load and a push of one entity": World((LOAD, PUSH_A), Faults(1, 1, 1)),
    "a load that is taken over": World((LOAD, AGAIN), RESTORED),
    "a push and two fills": World((PUSH_A, FILL_A, FILL_A), Faults(2, 1, 1)),
    "a cold cache": World((PUSH_A, COOL, MOVE)),
}
LARGE = {
    "a load and a push, and nobody is sent to the store": World((LOAD, PUSH_A, FILL_B), Faults(1), is_never_cold=True),
    "a load that is taken over, and a push": World((LOAD, AGAIN, PUSH_A), Faults(1)),
    "a load that is taken over, a push, a restore": World((LOAD, AGAIN, PUSH_A), RESTORED),
    "two loads": World((LOAD, LOAD_B), RESTORED),
    "two pushes and a fill": World((PUSH_A, PUSH_A, FILL_A), Faults(1, 1, 1)),
    "a load and two fills": World((LOAD, FILL_A, FILL_B), Faults(1, 1, 1)),
    "two movers and two pushes": World((PUSH_A, PUSH_B, MOVE, MOVE), Faults(flushes=1, lost_markers=1)),
    "two movers and a fill": World((PUSH_A, FILL_A, MOVE, MOVE), Faults(1, 1, 1, 0, 1)),
    "a load, a push, a mover, a flush": World((LOAD, PUSH_A, MOVE), Faults(flushes=1)),
    "a load, a push, a mover, a lost marker": World((LOAD, PUSH_A, MOVE), Faults(evictions=1, lost_markers=1)),
    "a load, a fill, two movers": World((LOAD, FILL_A, MOVE, MOVE), Faults(0, 1, 1, 1)),
    "two pushes into a cold cache": World((PUSH_A, PUSH_B, COOL, MOVE, FILL_A)),
    "a cold cache and two movers": World((PUSH_A, COOL, MOVE, MOVE), Faults(0, 1, 1, 1)),
    "a load into a cold cache": World((LOAD, PUSH_A, COOL, MOVE)),
    "a load, a push, a fill": World((LOAD, PUSH_A, FILL_A), Faults(1)),
}


def loads_compare_nothing(put: Put, marker: Marker, present: int | None, publication: int) -> bool:
    return put.chain is not None or is_written(put, marker, present, publication)


def loads_make_what_is_absent(put: Put, marker: Marker, present: int | None, publication: int) -> bool:
    return (put.chain is not None and present is None) or is_written(put, marker, present, publication)


def fills_make_what_is_absent(put: Put, marker: Marker, present: int | None, publication: int) -> bool:
    return (put.chain is None and present is None) or is_written(put, marker, present, publication)


def chains_are_not_counted(put: Put, marker: Marker | None, chain: Any) -> Any:
    if put.chain is not None and chain is not None and chain.token == put.chain.token:
        chain = replace(chain, count=put.chain.count - 1)
    return judge(put, marker, chain)


def loads_begin_from_anything(put: Put, marker: Marker | None, chain: Any) -> Any:
    if put.chain is not None and put.chain.count == 0:
        put = replace(put, advance=None)
    return judge(put, marker, chain)


def pushes_move_no_mark(put: Put, marker: Marker | None, chain: Any) -> Verdict:
    verdict = judge(put, marker, chain)
    if marker is None or put.advance is None or put.advance.mark is not Mark.PUSHED:
        return verdict
    return replace(verdict, marker=replace(verdict.marker, pushed=marker.pushed))


def marks_are_equal(marker: Marker, generation: Any, *, pushed: int, loaded: int) -> bool:
    return (marker.generation, marker.pushed, marker.loaded) == (generation, pushed, loaded)


MUTANTS = {
    "a load replaces without comparing": World((LOAD, PUSH_A), rules=Rules(is_written=loads_compare_nothing)),
    "a load makes what it has not seen": World((LOAD, PUSH_A), Faults(1), Rules(is_written=loads_make_what_is_absent)),
    "a fill makes what it has not seen": World(
        (PUSH_A, FILL_A), Faults(1), Rules(is_written=fills_make_what_is_absent)
    ),
    "a fill makes it in an empty cache": World(
        (PUSH_A, FILL_A), Faults(2), Rules(is_written=fills_make_what_is_absent), begins_warm=False
    ),
    "a chain has a token and no count": World((LOAD,), RESTORED, Rules(judge=chains_are_not_counted)),
    "a chain has the token of its process": World((LOAD, LOAD_B), RESTORED, Rules(begins_chains_anew=False)),
    "a load begins from any marker": World((LOAD, LOAD_B), RESTORED, Rules(judge=loads_begin_from_anything)),
    "a load marks before its rows": World((LOAD,), RESTORED, Rules(marks_last=False)),
    "a push moves no mark": World((PUSH_A,), rules=Rules(judge=pushes_move_no_mark), is_never_cold=True),
    "a push moves the mark to itself": World((PUSH_A, PUSH_B), RESTORED, Rules(reads_all_pushes=False)),
    "a push is done before the store knows": World((PUSH_A,), RESTORED, Rules(counts_pushes=False)),
    "a reader wants equal marks": World((PUSH_A,), rules=Rules(at_least=marks_are_equal), is_never_cold=True),
    "a generation is used again": World(
        (PUSH_A, PUSH_B, MOVE), Faults(lost_markers=1), Rules(takes_new_generations=False)
    ),
}


@pytest.mark.parametrize("name", [*SMALL, *(LARGE if IS_WHOLE else ())])
def test_no_reader_gets_what_is_older_than_what_was_done(name: str) -> None:
    trouble, states = (SMALL | LARGE)[name].search()
    assert trouble is None
    assert states > 100


@pytest.mark.parametrize("name", MUTANTS)
def test_each_rule_is_needed(name: str) -> None:
    trouble, _ = MUTANTS[name].search()
    assert trouble is not None
