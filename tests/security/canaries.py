"""Files that nobody may open, and a Postgres with a function that tells whether it was called."""

import ctypes
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.databases import postgres

_OPENED = 0x20
_libc = ctypes.CDLL(None, use_errno=True)


class Files:
    """Notices every opening of the files it watches, by any process of this machine."""

    def __init__(self, *paths: Path) -> None:
        self._file = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        assert self._file >= 0, os.strerror(ctypes.get_errno())
        self._names = {self._watch(path): str(path) for path in paths}

    def _watch(self, path: Path) -> int:
        found = int(_libc.inotify_add_watch(self._file, os.fsencode(path), _OPENED))
        assert found >= 0, os.strerror(ctypes.get_errno())
        return found

    def opened(self) -> set[str]:
        """Those opened since the last time."""
        try:
            told = os.read(self._file, 1 << 16)
        except BlockingIOError:
            return set()
        found = set()
        while told:
            watch, _, _, length = struct.unpack_from("iIII", told)
            found.add(self._names[watch])
            told = told[16 + length :]
        return found

    def close(self) -> None:
        os.close(self._file)


@contextmanager
def watched(*paths: Path) -> Iterator[Files]:
    files = Files(*paths)
    try:
        yield files
    finally:
        files.close()


# Reading is no excuse: COPY TO is a read to Postgres, so the function tells in a transaction that only reads, too.
WORLD = """
create table orders (id bigint primary key, name text, at timestamptz);
insert into orders values (1, 'Ada', '2024-01-01'), (2, 'Alan', '2024-01-02');
create table victim (id int);
insert into victim values (1), (2), (3);
create view seen as select id, name from orders;
create sequence canary_seq;
create schema shop;
create table shop.items (id int, title text);
create function told() returns int language plpgsql as $f$ begin execute $x$copy (select 1) to '{told}'$x$; return 1; end $f$;
create function canary(a int) returns int language plpgsql as $f$ begin return public.told(); end $f$;
create function canary(a bigint) returns int language plpgsql as $f$ begin return public.told(); end $f$;
create function canary(a orders) returns int language plpgsql as $f$ begin return public.told(); end $f$;
create function canary(a text) returns int language plpgsql as $f$ begin return public.told(); end $f$;
create function canary() returns int language plpgsql as $f$ begin return public.told(); end $f$;
create function public.lower(a int) returns int language plpgsql as $f$ begin return public.told(); end $f$;
create function public.lower(a text) returns text language plpgsql as $f$ begin perform public.told(); return a; end $f$;
create function shop.canary(a int) returns int language plpgsql as $f$ begin return public.told(); end $f$;
create function canary_agg(a int, b bigint) returns int language plpgsql as $f$ begin return public.told(); end $f$;
create aggregate summed(bigint) (sfunc = canary_agg, stype = int, initcond = '0');
create function plus(a int, b int) returns int language plpgsql as $f$ begin return public.told(); end $f$;
create function alike(a text, b text) returns boolean language plpgsql as $f$ begin return public.told() = 1; end $f$;
create operator public.+ (function = plus, leftarg = int, rightarg = int);
create operator public.## (function = plus, leftarg = int, rightarg = int);
create operator public.@#@ (function = plus, leftarg = int, rightarg = int);
create operator public.= (function = alike, leftarg = text, rightarg = text);
create operator public.=@= (function = alike, leftarg = text, rightarg = text);
create domain canary_domain as int check (public.canary(value) = 1);
create type mood as enum ('a', 'b');
create function cast_mood(a mood) returns int language plpgsql as $f$ begin return public.told(); end $f$;
create cast (mood as int) with function cast_mood(mood) as implicit;
create function mood_json(a mood) returns json language plpgsql as $f$ begin perform public.told(); return '1'; end $f$;
create cast (mood as json) with function mood_json(mood);
create table moods (m mood, s text);
insert into moods values ('a', 'x'), ('b', 'y');
create table guarded (id canary_domain, name text);
create type pair as (a int, b int);
create function compared(a pair, b pair) returns int language plpgsql as $f$ begin return public.told(); end $f$;
create function smaller(a pair, b pair) returns boolean language plpgsql as $f$ begin return public.told() = 1; end $f$;
create operator public.< (function = smaller, leftarg = pair, rightarg = pair);
create operator public.<= (function = smaller, leftarg = pair, rightarg = pair);
create operator public.= (function = smaller, leftarg = pair, rightarg = pair);
create operator public.>= (function = smaller, leftarg = pair, rightarg = pair);
create operator public.> (function = smaller, leftarg = pair, rightarg = pair);
create operator class pairs default for type pair using btree as
operator 1 public.<, operator 2 public.<=, operator 3 public.=, operator 4 public.>=, operator 5 public.>, function 1 compared(pair, pair);
create table pairs (p pair);
insert into pairs values (row(1, 2)), (row(2, 1));
create table rides (id int, name text);
insert into rides values (1, 'a');
create function ride_text(a rides) returns text language plpgsql as $f$ begin perform public.told(); return 'a'; end $f$;
create function ride_int(a rides) returns int language plpgsql as $f$ begin return public.told(); end $f$;
create function ride_true(a rides) returns boolean language plpgsql as $f$ begin return public.told() = 1; end $f$;
create cast (rides as text) with function ride_text(rides) as implicit;
create cast (rides as int) with function ride_int(rides) as implicit;
create cast (rides as boolean) with function ride_true(rides) as assignment;
create type mark as enum ('a', 'b');
create function marks_text(a mark[]) returns text language plpgsql as $f$ begin perform public.told(); return 'a'; end $f$;
create cast (mark[] as text) with function marks_text(mark[]) as implicit;
create table marks (m mark, ms mark[], moods mood[]);
insert into marks values ('a', '{a}', '{a}');
create table gathered (id canary_domain, ids canary_domain[], name text);
create collation canary (locale = 'C', provider = libc)
"""


def build(url: str, told: Path) -> None:
    """Make the tables, functions, operators and types that the corpus names."""
    for statement in WORLD.replace("{told}", str(told)).strip().split(";\n"):
        postgres(url, statement)
