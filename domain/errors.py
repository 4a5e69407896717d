"""One tree of errors, so that every door maps the same failure to the same answer.

PlatformError(code, retryable)
├── InvalidInputError            the caller can fix it
│   ├── SpecError                a document is wrong; carries every problem with its place
│   ├── QueryRefusedError        a query that is not one read-only statement
│   └── SettingsError            settings are wrong; carries every problem with its source
├── UnauthenticatedError         no valid key
├── PermissionDeniedError        a valid key without the role
├── NotFoundError                also what strangers see
├── ConflictError                the state does not allow it
│   ├── FencedError              a newer owner has taken over
│   └── BusyError                another process holds what this one needs
├── WorkFailedError              a run's own work failed
│   ├── QualityRejectedError     a rule with `on_violation: fail` was violated
│   ├── ConversionError          more rows failed to convert than `on_error` allows
│   ├── SchemaMismatchError      columns that the destination cannot take
│   └── SourceChangedError       the declared read set is no longer there
├── ScopeError                   a bug of ours: work for one organization reached for another's
└── UnavailableError             something needed is not reachable; retryable
    ├── StoreUnavailableError
    ├── StoreRefusedError        a store that turns us away until somebody changes something; not retryable
    └── MissingExtraError        an optional driver is not installed; not retryable
"""

from collections.abc import Sequence
from dataclasses import dataclass

from domain.first_errors import FirstError
from domain.rule_results import RuleResult


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, and where. `place` is `file:line:column`, a setting or a field path."""

    place: str
    code: str
    message: str


class PlatformError(Exception):
    """Whatever this program refuses or fails to do, with a stable code and a sentence to act on."""

    code = "internal"
    retryable = False

    def __init__(self, message: str, *, code: str | None = None, problems: Sequence[Problem] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.problems = tuple(problems)
        if code is not None:
            self.code = code


class InvalidInputError(PlatformError):
    """The request cannot be carried out as it is written."""

    code = "input.invalid"


class SpecError(InvalidInputError):
    """A document has problems; all of them are in `problems`."""

    code = "spec.invalid"

    def __init__(self, problems: Sequence[Problem], *, message: str | None = None) -> None:
        first = problems[0]
        count = len(problems)
        text = message or (first.message if count == 1 else f"{count} problems; the first: {first.message}")
        codes = {problem.code for problem in problems}
        super().__init__(text, code=first.code if len(codes) == 1 else "spec.invalid", problems=problems)


class QueryRefusedError(InvalidInputError):
    """A query is not one read-only statement over relations it may see."""

    code = "query.refused"


class SettingsError(InvalidInputError):
    """The settings are wrong; all problems are in `problems`, none shows a value."""

    code = "settings.invalid"

    def __init__(self, problems: Sequence[Problem]) -> None:
        first = f"{problems[0].place} {problems[0].message}"
        text = first if len(problems) == 1 else f"{len(problems)} settings are wrong; the first: {first}"
        super().__init__(text, problems=problems)


class UnauthenticatedError(PlatformError):
    """No valid key came with the request."""

    code = "auth.required"


class PermissionDeniedError(PlatformError):
    """The principal's roles do not allow the action."""

    code = "auth.denied"


class NotFoundError(PlatformError):
    """There is no such object in the caller's organization."""

    code = "not_found"


class ConflictError(PlatformError):
    """The state of things does not allow it."""

    code = "conflict"


class FencedError(ConflictError):
    """A newer owner has taken over; nothing was changed. `fence` is the newer one, if known."""

    code = "run.fenced"

    def __init__(self, message: str, *, fence: int | None = None) -> None:
        super().__init__(message)
        self.fence = fence


class BusyError(ConflictError):
    """Another process holds what this one needs."""

    code = "busy"


class WorkFailedError(PlatformError):
    """A run did its work and failed; the message says what to change, `first_errors` which rows it was about."""

    code = "run.failed"
    first_errors: Sequence[FirstError] = ()


class QualityRejectedError(WorkFailedError):
    """A rule with `on_violation: fail` was violated; the batch or publication was not committed. `results` says what
    was found of the rules that were judged.
    """

    code = "quality.rejected"
    results: Sequence[RuleResult] = ()


class ConversionError(WorkFailedError):
    """More rows failed to convert than `on_error` allows."""

    code = "run.conversion"


class SchemaMismatchError(WorkFailedError):
    """The destination table cannot take the columns as they are."""

    code = "schema.mismatch"


class SourceChangedError(WorkFailedError):
    """What the read set declared is no longer there (a file changed, a column disappeared)."""

    code = "source.changed"


class ScopeError(PlatformError):
    """Work that is scoped to one organization reached for what is not its own, or work that needs a scope had none."""


class UnavailableError(PlatformError):
    """Something that is needed cannot be reached now."""

    code = "unavailable"
    retryable = True


class StoreUnavailableError(UnavailableError):
    """A store cannot be reached or broke off on the way."""

    code = "store.unavailable"


class StoreRefusedError(UnavailableError):
    """A store turns us away, and will until somebody changes something: trying again cannot help."""

    code = "store.refused"
    retryable = False


class MissingExtraError(UnavailableError):
    """An optional driver is not installed."""

    code = "extra.missing"
    retryable = False

    def __init__(self, extra: str, needed_for: str) -> None:
        super().__init__(f"{needed_for} needs the extra '{extra}': install it with pip install 'headrace[{extra}]'.")
