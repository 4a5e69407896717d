"""A view of two entities, its store, one cache and whoever writes to them: every order in which that can happen.

The rules are those of the program: `judge` and `is_written` of `domain.features.coherence`. Here stand the writers
around them, a reader that polls, and what can happen to a cache: entries are evicted, a snapshot is restored, all is
flushed, the marker is lost. A writer that is frozen is one that goes on late, a dead one never does: the search takes
every order. Values are the numbers of the publications that last changed an entity; publication 1 was a load of both.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from domain.features import coherence
from domain.features.coherence import Advance, Chain, Mark, Marker, Outcome, Put

ENTITIES = (0, 1)
_MOST_ATTEMPTS = 3

judge = lru_cache(maxsize=None)(coherence.judge)


_BEGUN: Any = Marker(1, 1, 1, 1)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Rules:
    """What the writers and the reader keep to. A mutant is one of these, with one rule changed."""

    judge: Callable[..., Any] = judge
    is_written: Callable[..., bool] = coherence.is_written
    at_least: Callable[..., bool] = Marker.at_least
    reads_all_pushes: bool = True
    """A push moves the mark from what the cache has, with all that came since, and not to itself."""
    counts_pushes: bool = True
    """The store remembers how far pushes are in the cache, before a push says that it is done."""
    takes_new_generations: bool = True
    begins_chains_anew: bool = True
    """Each attempt to load has a token of its own, and not each process."""
    marks_last: bool = True
    """The mark of a load moves after its rows."""


@dataclass(frozen=True)
class State:
    """All there is. `polled` is what the reader knows, `owed` what had been said to be done when it learned that."""

    generation: int = 1
    newest_generation: int = 1
    current: int = 1
    pushed: int = 1
    loaded: int = 1
    is_warm: bool = True
    latest: tuple[tuple[int, int], ...] = ((1, 0), (1, 0))
    marker: Marker | None = _BEGUN
    chain: Chain | None = None
    values: tuple[tuple[tuple[int, int], int], ...] = (((1, 0), 1), ((1, 1), 1))
    saved: tuple[Any, ...] | None = None
    polled: tuple[int, int, int] = (1, 1, 1)
    owed: tuple[int, int] = (1, 1)
    done: tuple[int, int] = (1, 1)
    processes: tuple[tuple[str, tuple[Any, ...]], ...] = ()
    faults: tuple[int, ...] = ()
    was_troubled: bool = False
    has_moved: bool = False
    attempts: int = 0


@dataclass(frozen=True)
class Faults:
    """How often each may happen."""

    evictions: int = 0
    snapshots: int = 0
    restores: int = 0
    flushes: int = 0
    lost_markers: int = 0


@dataclass(frozen=True)
class World:
    """Who acts: pushes (`push`, entity), loads (`load`, entities, whose), fills, moves and coolings."""

    actors: tuple[tuple[Any, ...], ...]
    faults: Faults = field(default_factory=Faults)
    rules: Rules = field(default_factory=Rules)
    begins_warm: bool = True
    is_never_cold: bool = False
    """That the reader is never sent to the store is a promise, where nothing went wrong."""

    def first(self) -> State:
        given = (getattr(self.faults, name) for name in Faults.__dataclass_fields__)
        begun = State(processes=(("commit", ()),) * len(self.actors), faults=tuple(given))
        return begun if self.begins_warm else replace(begun, values=())

    def next(self, state: State) -> Iterator[State]:
        for place, (actor, (step, kept)) in enumerate(zip(self.actors, state.processes, strict=True)):
            if step != "end":
                yield from _ACTS[actor[0]](self, state, place, step, kept)
        polled = (state.generation, state.pushed, state.loaded)
        if state.polled != polled or state.owed != state.done:
            yield replace(state, polled=polled, owed=state.done)
        yield from _happens(state)

    def put(
        self,
        state: State,
        generation: int,
        snapshot: int,
        rows: Mapping[int, int],
        chain: Chain | None = None,
        advance: Advance | None = None,
    ) -> tuple[Any, State]:
        put = Put(generation, snapshot, chain, advance)  # type: ignore[arg-type]
        verdict = self.rules.judge(put, state.marker, state.chain)
        values = dict(state.values)
        if verdict.takes_rows:
            for entity, number in rows.items():
                key = (generation, entity)
                if self.rules.is_written(put, state.marker, values.get(key), number):
                    values[key] = number
        return verdict, replace(state, marker=verdict.marker, chain=verdict.chain, values=tuple(sorted(values.items())))

    def trouble(self, state: State) -> str | None:
        """What a reader gets now that it may not get."""
        generation, pushed, loaded = state.polled
        marker, values = state.marker, dict(state.values)
        is_undisturbed = not state.was_troubled and not state.has_moved
        known: Any = generation
        if marker is None or not self.rules.at_least(marker, known, pushed=pushed, loaded=loaded):
            return "cold without a fault" if self.is_never_cold and is_undisturbed else None
        for entity in ENTITIES:
            found = values.get((generation, entity))
            if found is not None and found < state.owed[entity]:
                return f"stale: {found} of {entity}, and {state.owed[entity]} was done when the reader polled"
            if found is not None and is_undisturbed and found < state.done[entity]:
                return f"stale at once: {found} of {entity}, and {state.done[entity]} is done"
        return None

    def search(self) -> tuple[str | None, int]:
        """Look at every state that can be reached, nearest first; return the first trouble, and how many there were."""
        first = self.first()
        seen, waiting = {first}, deque([first])
        while waiting:
            state = waiting.popleft()
            if (trouble := self.trouble(state)) is not None:
                return trouble, len(seen)
            for after in self.next(state):
                if after not in seen:
                    seen.add(after)
                    waiting.append(after)
        return None, len(seen)


def _at(state: State, place: int, step: str, *kept: Any) -> State:
    processes = list(state.processes)
    processes[place] = (step, kept)
    return replace(state, processes=tuple(processes))


def _done(state: State, place: int, number: int, *entities: int) -> State:
    done = list(state.done)
    for entity in entities:
        done[entity] = max(done[entity], number)
    return _at(replace(state, done=tuple(done)), place, "end")


def _push(world: World, state: State, place: int, step: str, kept: tuple[Any, ...]) -> Iterator[State]:
    entity, rules = world.actors[place][1], world.rules
    match step:
        case "commit":
            number = state.current + 1
            latest = list(state.latest)
            latest[entity] = (number, number)
            after = replace(state, current=number, latest=tuple(latest))
            if state.is_warm:
                yield _at(after, place, "read", number, None)
            else:  # Nothing is written to a cache that is cold: its marks are those of the store.
                yield _at(replace(after, pushed=number, loaded=number), place, "outwait", number, state.generation)
        case "outwait":
            number, generation = kept
            if state.polled[0] >= generation:  # Every reader knows by then.
                yield _done(state, place, number, entity)
        case "read":
            number, since = kept
            if state.pushed >= number:
                yield _done(state, place, number, entity)
                return
            since = state.pushed if since is None else min(since, state.pushed)
            rows = tuple((each, state.latest[each][0]) for each in ENTITIES if state.latest[each][1] > since)
            if not rules.reads_all_pushes:
                since, rows = 0, ((entity, state.latest[entity][0]),)
            yield _at(state, place, "put", number, state.generation, state.current, since, rows)
        case "put":
            number, generation, snapshot, since, rows = kept
            verdict, after = world.put(state, generation, snapshot, dict(rows), advance=Advance(Mark.PUSHED, since))
            if verdict.outcome is Outcome.OK:
                yield _at(after, place, "sync", number, generation, snapshot)
            elif verdict.outcome is Outcome.BEHIND:
                yield _at(state, place, "read", number, verdict.mark)
            elif state.generation != generation:
                yield _at(state, place, "read", number, None)
            else:
                yield _at(state, place, "wait", number)
        case "wait":  # Somebody has to move the view first.
            (number,) = kept
            is_moved = state.marker is not None and state.marker.generation == state.generation  # type: ignore[comparison-overlap]
            if is_moved or state.pushed >= number:
                yield _at(state, place, "read", number, None)
        case "sync":
            number, generation, snapshot = kept
            if state.generation != generation:
                yield _at(state, place, "read", number, None)
            else:
                pushed = max(state.pushed, snapshot) if rules.counts_pushes else state.pushed
                yield _done(replace(state, pushed=pushed), place, number, entity)


def _load(world: World, state: State, place: int, step: str, kept: tuple[Any, ...]) -> Iterator[State]:
    _, entities, other = world.actors[place]
    rules = world.rules
    match step:
        case "commit":
            if other is None:
                number = state.current + 1
                latest = tuple(
                    (number, push) if entity in entities else (last, push)
                    for entity, (last, push) in enumerate(state.latest)
                )
                yield _at(replace(state, current=number, latest=latest), place, "read", number, None)
            elif state.processes[other][0] not in ("commit", "end"):  # It takes over what another began.
                yield _at(state, place, "read", state.processes[other][1][0], None)
        case "read":
            number, since = kept
            if state.loaded >= number:
                yield _done(state, place, number, *entities)
                return
            since = state.loaded if since is None else min(since, state.loaded)
            changed = tuple(entity for entity in ENTITIES if state.latest[entity][0] > since)
            yield _at(state, place, "start", number, state.generation, state.current, since, changed)
        case "start":
            number, generation, snapshot, since, changed = kept
            if state.attempts == _MOST_ATTEMPTS:
                return
            token: Any = state.attempts if rules.begins_chains_anew else ~place
            advance = Advance(Mark.LOADED, since)
            verdict, after = world.put(state, generation, snapshot, {}, Chain(token, 0), advance)
            if verdict.outcome is Outcome.OK:
                marker = after.marker
                if not rules.marks_last and marker is not None:
                    marker = replace(marker, loaded=max(marker.loaded, snapshot))
                attempts = state.attempts + rules.begins_chains_anew
                after = replace(after, marker=marker, attempts=attempts)
                yield _at(after, place, "row", number, generation, snapshot, changed, 0, token)
            elif verdict.outcome is Outcome.BEHIND:
                yield _at(state, place, "read", number, verdict.mark)
            elif state.generation != generation:
                yield _at(state, place, "read", number, None)
        case "row":
            number, generation, snapshot, changed, count, token = kept
            if count < len(changed):
                value = state.latest[changed[count]][0]
                yield _at(state, place, "put", *kept, state.current, value)
                return
            advance = Advance(Mark.LOADED, 0)
            verdict, after = world.put(state, generation, snapshot, {}, Chain(token, count + 1), advance)
            if verdict.outcome is Outcome.OK:
                yield _at(after, place, "sync", number, generation, snapshot)
            else:
                yield _at(state, place, "read", number, None)
        case "put":
            number, generation, snapshot, changed, count, token, read_at, value = kept
            chain = Chain(token, count + 1)
            verdict, after = world.put(state, generation, read_at, {changed[count]: value}, chain)
            if verdict.outcome is Outcome.OK:
                yield _at(after, place, "row", number, generation, snapshot, changed, count + 1, token)
            else:
                yield _at(state, place, "read", number, None)
        case "sync":
            number, generation, snapshot = kept
            if state.generation == generation:
                yield _done(replace(state, loaded=max(state.loaded, snapshot)), place, number, *entities)
            else:
                yield _at(state, place, "read", number, None)


def _fill(world: World, state: State, place: int, step: str, kept: tuple[Any, ...]) -> Iterator[State]:
    entity = world.actors[place][1]
    if step == "commit":
        yield _at(state, place, "put", state.polled[0], state.current, state.latest[entity][0])
    else:
        generation, snapshot, value = kept
        _, after = world.put(state, generation, snapshot, {entity: value})
        yield _at(after, place, "end")


def _move(world: World, state: State, place: int, step: str, kept: tuple[Any, ...]) -> Iterator[State]:
    rules, current = world.rules, state.current
    match step:
        case "commit":
            stands = state.marker is not None and state.marker.generation == state.generation  # type: ignore[comparison-overlap]
            if not stands or not state.is_warm:
                yield _at(state, place, "store", state.marker, state.generation)
        case "store":
            remembered, generation = kept
            if state.generation != generation:
                yield _at(state, place, "end")
                return
            newest = state.newest_generation + rules.takes_new_generations
            after = replace(state, newest_generation=newest, loaded=current, pushed=current, has_moved=True)
            if rules.takes_new_generations:
                after = replace(after, generation=newest, is_warm=True)
            yield _at(after, place, "install", remembered, after.generation, current)
        case "install":
            remembered, generation, current = kept
            new = Marker(generation, current, current, current)
            yield _at(replace(state, marker=new) if state.marker == remembered else state, place, "end")


def _cool(_world: World, state: State, place: int, _step: str, _kept: tuple[Any, ...]) -> Iterator[State]:
    newest, current = state.newest_generation + 1, state.current
    cold = replace(state, generation=newest, newest_generation=newest, loaded=current, pushed=current)
    yield _at(replace(cold, has_moved=True, is_warm=False), place, "end")


_ACTS = {"push": _push, "load": _load, "fill": _fill, "move": _move, "cool": _cool}


def _happens(state: State) -> Iterator[State]:
    """What becomes of a cache by itself."""
    evictions, snapshots, restores, flushes, lost = state.faults
    inside = (state.marker, state.chain, state.values)
    if evictions:
        less = (evictions - 1, snapshots, restores, flushes, lost)
        for key, _ in state.values:
            values = tuple(item for item in state.values if item[0] != key)
            yield replace(state, values=values, faults=less)
    if snapshots:
        yield replace(state, saved=inside, faults=(evictions, snapshots - 1, restores, flushes, lost))
    if restores and state.saved is not None and state.saved != inside:
        marker, chain, values = state.saved
        less = (evictions, snapshots, restores - 1, flushes, lost)
        yield replace(state, marker=marker, chain=chain, values=values, faults=less, was_troubled=True)
    if flushes:
        less = (evictions, snapshots, restores, flushes - 1, lost)
        yield replace(state, marker=None, chain=None, values=(), faults=less, was_troubled=True)
    if lost and state.marker is not None:
        less = (evictions, snapshots, restores, flushes, lost - 1)
        yield replace(state, marker=None, faults=less, was_troubled=True)
