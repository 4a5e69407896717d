"""Scopes as contexts of tasks: whoever is begun within one is in it too."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from domain.errors import ScopeError
from domain.identity.scope import Scope
from domain.ports.records.unit_of_work import IUnitOfWork
from domain.ports.scopes import IScopes


@dataclass
class _Open:
    scope: Scope
    unit: IUnitOfWork | None = None


class ContextScopes(IScopes):
    """Remembers the scope of each task, and what lives in it."""

    def __init__(self) -> None:
        self._current: ContextVar[_Open | None] = ContextVar("scope", default=None)

    @asynccontextmanager
    async def create_scope(self, scope: Scope) -> AsyncIterator[Scope]:
        around = self._current.get()
        if around is not None and scope.organization is not None:
            around.scope.admit(scope.organization)
        begun = _Open(scope)
        before = self._current.set(begun)
        try:
            yield scope
        finally:
            self._current.reset(before)
            if begun.unit is not None:
                await begun.unit.__aexit__(None, None, None)

    def current(self) -> Scope:
        return self._begun().scope

    def refuse_beyond(self, scope: Scope) -> None:
        """Keep what is asked for within a scope from being another organization's.

        Raises:
            ScopeError: it is.
        """
        begun = self._current.get()
        if begun is not None and scope.organization is not None:
            begun.scope.admit(scope.organization)

    def unit_of_work(self, begin: Callable[[Scope], IUnitOfWork]) -> IUnitOfWork:
        """The one unit of work of the current scope, which rolls it back at its end if nobody has committed it.

        Raises:
            ScopeError: no scope was begun.
        """
        begun = self._begun()
        if begun.unit is None:
            begun.unit = begin(begun.scope)
        return begun.unit

    def _begun(self) -> _Open:
        begun = self._current.get()
        if begun is None:
            raise ScopeError("A unit of work lives in a scope, and none was begun: use create_scope().")
        return begun
