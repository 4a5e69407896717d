"""The port to scopes: what lives as long as one request, one command or one run."""

from abc import ABC, abstractmethod
from contextlib import AbstractAsyncContextManager

from domain.identity.scope import Scope


class IScopes(ABC):
    """Scopes of this process. The one that a task is in is found without being handed on."""

    @abstractmethod
    def create_scope(self, scope: Scope) -> AbstractAsyncContextManager[Scope]:
        """Begin a scope, closed at the end of the block with all that lives in it.

        Raises:
            ScopeError: there is one already, of another organization.
        """

    @abstractmethod
    def current(self) -> Scope:
        """The scope that the caller is in.

        Raises:
            ScopeError: none was begun.
        """
