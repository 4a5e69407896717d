"""Named places where a test, `crashtest` or the demo may make the process die; a no-op unless armed.

`entrypoints/composition/failpoints.py` arms one from HEADRACE_FAILPOINT; this module only knows the names, so that code
of every layer can say where it stands.
"""

from collections.abc import Callable

FAILPOINTS = frozenset(
    {
        "api.after_commit_before_response",
        "enqueue.after_commit_before_publish",
        "queue.after_publish",
        "claim.after_update",
        "claim.before_ack",
        "plan.after_store",
        "dest.after_fence",
        "extract.mid_page",
        "batch.before_begin",
        "batch.after_checkpoint",
        "batch.mid_rows",
        "batch.before_commit",
        "batch.commit_sent",
        "batch.after_commit",
        "ddl.between_columns",
        "publish.before_swap",
        "publish.after_swap",
        "publish.before_commit",
        "publish.after_commit",
        "seal.after_fence",
        "finish.before_state",
        "cancel.after_flag",
        "lease.renew_lost",
        "drain.start",
        "drain.last_second",
    }
)

_armed: Callable[[str], None] | None = None


def fail_at(name: str) -> None:
    """Do nothing, unless a failpoint is armed."""
    if _armed is not None:
        _armed(name)


def arm(hook: Callable[[str], None] | None) -> None:
    """Call `hook` with the name of every failpoint passed from now on; None disarms."""
    global _armed
    _armed = hook
