"""The one permission table: use cases ask it, doors do not repeat it."""

from enum import StrEnum

from domain.errors import PermissionDeniedError
from domain.identity.principal import Principal, Role


class Action(StrEnum):
    """Everything a use case may be asked to do."""

    READ = "read"
    PREVIEW = "preview"
    WRITE_SPEC = "write_spec"
    TRIGGER = "trigger"
    CANCEL = "cancel"
    RESET_STATE = "reset_state"
    WRITE_CONNECTION = "write_connection"
    MANAGE_KEYS = "manage_keys"
    OPERATE = "operate"
    READ_METRICS = "read_metrics"


_VIEWER = frozenset({Action.READ})
_RUNNER = _VIEWER | {Action.TRIGGER}
_ENGINEER = _VIEWER | {Action.PREVIEW, Action.WRITE_SPEC}
_ADMIN = frozenset(Action) - {Action.OPERATE, Action.READ_METRICS}

PERMISSIONS: dict[Role, frozenset[Action]] = {
    Role.VIEWER: _VIEWER,
    Role.RUNNER: _RUNNER,
    Role.DATA_ENGINEER: _ENGINEER,
    Role.PIPELINE_ADMIN: _ADMIN,
    # Workers serve every organization, and count what they do for each: only who acts in all may stop or read them.
    Role.PLATFORM_ADMIN: frozenset(Action),
}


def is_allowed(principal: Principal, action: Action) -> bool:
    """Say whether one of the principal's roles allows the action."""
    return any(action in PERMISSIONS[role] for role in principal.roles)


def may_grant(principal: Principal, role: Role) -> bool:
    """Say whether the principal may do all that a role allows: nobody hands out more than they have."""
    return all(is_allowed(principal, action) for action in PERMISSIONS[role])


def require(principal: Principal, action: Action) -> None:
    """Raise `PermissionDeniedError` unless one of the principal's roles allows the action."""
    if not is_allowed(principal, action):
        raise PermissionDeniedError(f"{principal.subject} may not {action.value} in {principal.organization}.")
