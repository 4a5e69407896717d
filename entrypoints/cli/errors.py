"""Errors as exit codes and sentences: 1 the work failed, 2 bad input, 3 unavailable, 4 not allowed."""

from domain import errors
from entrypoints.cli.output import say

EXIT_CODES: dict[type[errors.PlatformError], int] = {
    errors.InvalidInputError: 2,
    errors.SpecError: 2,
    errors.QueryRefusedError: 2,
    errors.SettingsError: 2,
    errors.UnauthenticatedError: 4,
    errors.PermissionDeniedError: 4,
    errors.NotFoundError: 2,
    errors.ConflictError: 1,
    errors.FencedError: 1,
    errors.BusyError: 3,
    errors.WorkFailedError: 1,
    errors.QualityRejectedError: 1,
    errors.ConversionError: 1,
    errors.SchemaMismatchError: 1,
    errors.SourceChangedError: 1,
    errors.ScopeError: 1,
    errors.UnavailableError: 3,
    errors.StoreUnavailableError: 3,
    errors.StoreRefusedError: 3,
    errors.MissingExtraError: 3,
    errors.PlatformError: 1,
}


def exit_code(error: errors.PlatformError) -> int:
    """Find the code of the nearest class in the table."""
    return next(EXIT_CODES[kind] for kind in type(error).__mro__ if kind in EXIT_CODES)


def show_error(error: errors.PlatformError) -> None:
    """Write an error for a person: the sentence, then every problem with its place."""
    say(f"error: {error.message} [{error.code}]", to_stderr=True)
    if len(error.problems) > 1 or (error.problems and error.problems[0].message != error.message):
        for problem in error.problems:
            say(f"  {problem.place}: {problem.message} [{problem.code}]", to_stderr=True)
    elif error.problems:
        say(f"  at {error.problems[0].place}", to_stderr=True)
