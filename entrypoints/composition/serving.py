"""What a process that serves has to know of the settings, and whether it may be what it is asked to be."""

from dataclasses import dataclass
from pathlib import Path

from domain.errors import Problem, SettingsError
from domain.stores.kinds import KINDS
from entrypoints.composition.configuration import document_limits
from entrypoints.composition.paths import Paths
from entrypoints.documents.limits import DocumentLimits
from infrastructure.settings.rules import REACHABLE, SHARED, remote_addresses, shares_credentials
from infrastructure.settings.tree import Settings


@dataclass(frozen=True)
class Serving:
    """Where it listens, how much it takes, and what is to be said of it. The names are those of the settings."""

    title: str
    api_version: str
    host: str
    port: int
    probes_host: str
    probes_port: int | None
    grace_seconds: float
    drain_file: Path
    allowed_hosts: tuple[str, ...]
    max_body_bytes: int
    max_requests: int
    request_wait_seconds: float
    keep_alive_seconds: int
    header_timeout_seconds: float
    body_timeout_seconds: float
    answer_timeout_seconds: float
    max_header_bytes: int
    max_headers: int
    max_connections: int
    documents: DocumentLimits
    reachable: tuple[str, ...]
    shared: tuple[str, ...]


def serving_of(settings: Settings, paths: Paths, *, alone: str | None) -> Serving:
    """Read it from the settings; `alone` is the one role of a process that has not both.

    Raises:
        SettingsError: that needs stores, records and a queue that several processes can share.
    """
    if alone is not None:
        _refuse_unshared(settings, alone)
    http = settings.http
    named = (
        "max_body_bytes", "max_requests", "request_wait_seconds", "keep_alive_seconds", "header_timeout_seconds",
        "body_timeout_seconds", "answer_timeout_seconds", "max_header_bytes", "max_headers", "max_connections",
    )  # fmt: skip
    return Serving(
        title=settings.app.name,
        api_version=settings.app.api_version,
        host=http.host,
        port=http.port,
        probes_host=settings.worker.host,
        probes_port=settings.worker.port,
        grace_seconds=float(http.grace_seconds),
        drain_file=settings.worker.drain_file or paths.drain,
        allowed_hosts=(*http.allowed_hosts, http.host),
        documents=document_limits(settings),
        reachable=tuple(f"{name} ({address}) {REACHABLE}." for name, address in remote_addresses(settings)),
        shared=(f"HEADRACE_METADATA__USER {SHARED}.",) if shares_credentials(settings) else (),
        **{name: getattr(http, name) for name in named},
    )


def _refuse_unshared(settings: Settings, role: str) -> None:
    chosen = {
        "HEADRACE_STORE__KIND": (settings.store.kind, [kind.name for kind in KINDS.values() if not kind.is_shared]),
        "HEADRACE_METADATA__KIND": (settings.metadata.kind, ("sqlite",)),
        "HEADRACE_QUEUE__KIND": (settings.queue.kind, ("memory",)),
    }
    problems = [
        Problem(name, "settings.unshared", f"is {kind}, which one process owns: headrace {role} needs one to share")
        for name, (kind, unshared) in chosen.items()
        if kind in unshared
    ]
    if problems:
        raise SettingsError(problems)
