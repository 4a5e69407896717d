"""Whether the process lives, and whether it can take work."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, Field

from application.operations.health import Liveness, PartHealth, PartStatus, Readiness

_DEGRADED = "degraded: "
_REMEDIES = {
    "process": "wait until it has started, or start it again",
    "records": "see that the database of HEADRACE_METADATA__*, or the disk of the home, is there and can be written",
    "store": "headrace connections test default",
    "queue": "see that the broker of REDIS_* or KAFKA_* answers",
    "cache": "see that the server of REDIS_* answers",
    "authentication": "see to the records first; then headrace keys list",
    "migrations": "headrace db upgrade, once all processes of another version have stopped",
    "disk": "make room, or set HEADRACE_HOME to a folder on another disk",
}

Status = Literal["healthy", "degraded", "unhealthy"]


class Check(BaseModel):
    """How a part was at the last look; `recent` are the looks of the last minute, the newest last."""

    status: Status
    detail: str | None
    recent: list[Status]


class Details(BaseModel):
    """What was looked at, and when."""

    checked_at: str | None
    checks: dict[str, Check]


class Health(BaseModel):
    """How the process is, by looks that it takes itself; to ask touches nothing."""

    status: Literal["healthy", "degraded", "shutting_down"]
    uptime_seconds: float
    details: Details
    timestamp: str


class Ready(BaseModel):
    """Whether work can be taken now."""

    ready: bool
    state: Literal["starting", "running", "shutting_down", "stopped"]
    parts: dict[str, str | None] = Field(
        description="What troubles each part, null where nothing does; with one that is only degraded work goes on."
    )


def liveness_body(liveness: Liveness) -> dict[str, Any]:
    """How the process is."""
    return {
        "status": liveness.status,
        "uptime_seconds": liveness.uptime_seconds,
        "details": {
            "checked_at": liveness.checked_at.isoformat() if liveness.checked_at is not None else None,
            "checks": {
                name: {"status": part.status.value, "detail": part.detail, "recent": list(liveness.recent[name])}
                for name, part in liveness.parts.items()
            },
        },
        "timestamp": liveness.at.isoformat(),
    }


def readiness_body(readiness: Readiness) -> dict[str, Any]:
    """Whether work can be taken, and each part's trouble."""
    return {
        "ready": readiness.is_ready,
        "state": readiness.state.value,
        "parts": {name: _trouble(part) for name, part in readiness.parts.items()},
    }


def _trouble(part: PartHealth) -> str | None:
    return f"{_DEGRADED}{part.detail}" if part.status is PartStatus.DEGRADED else part.detail


def parts_rows(ready: Mapping[str, Any]) -> list[tuple[str, bool, str, str]]:
    """Of each part its name, whether it is well, its trouble, and what to do about it."""
    return [
        (name, trouble is None, trouble or "none", _REMEDIES.get(name, "") if trouble is not None else "")
        for name, trouble in ready["parts"].items()
    ]
