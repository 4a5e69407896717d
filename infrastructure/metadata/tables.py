"""The platform's own tables. Every key starts with the organization, so no record can refer across one (T2)."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    TypeDecorator,
    UniqueConstraint,
    text,
)

metadata = MetaData()


class UtcDateTime(TypeDecorator[datetime]):
    """Times in UTC with their zone, also on SQLite, which stores none."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is not None and value.tzinfo is None:
            return value.replace(tzinfo=UTC)
        return value


def _organization() -> Column[Any]:
    return Column("org_id", String(63), ForeignKey("organizations.id"), primary_key=True)


organizations = Table(
    "organizations",
    metadata,
    Column("id", String(63), primary_key=True),
    Column("created_at", UtcDateTime(), nullable=False),
)


def _documents(name: str) -> tuple[Table, Table]:
    heads = Table(
        name,
        metadata,
        _organization(),
        Column("name", String(63), primary_key=True),
        Column("revision", Integer, nullable=False),
        Column("is_deleted", Boolean, nullable=False, default=False),
    )
    revisions = Table(
        f"{name[:-1]}_revisions",
        metadata,
        Column("org_id", String(63), primary_key=True),
        Column("name", String(63), primary_key=True),
        Column("revision", Integer, primary_key=True),
        Column("document", JSON, nullable=False),
        Column("updated_by", String(200), nullable=False),
        Column("updated_at", UtcDateTime(), nullable=False),
        ForeignKeyConstraint(["org_id", "name"], [f"{name}.org_id", f"{name}.name"]),
    )
    return heads, revisions


pipelines, pipeline_revisions = _documents("pipelines")
connections, connection_revisions = _documents("connections")

# What there may be runs of, and the fence of its lanes. It stays when the document is deleted: a fence must never go
# back while a destination remembers it.
lanes = Table(
    "lanes",
    metadata,
    _organization(),
    Column("work_kind", String(20), primary_key=True),
    Column("work_name", String(63), primary_key=True),
    Column("fence", Integer, nullable=False, default=0),
)

runs = Table(
    "runs",
    metadata,
    _organization(),
    Column("id", String(36), primary_key=True),
    Column("work_kind", String(20), nullable=False),
    Column("work_name", String(63), nullable=False),
    Column("revision", Integer, nullable=False),
    Column("lane", String(100), nullable=False),
    Column("state", String(12), nullable=False),
    Column("request", JSON, nullable=False),
    Column("fence", Integer, nullable=False, default=0),
    Column("attempt", Integer, nullable=False, default=0),
    Column("progress", Integer, nullable=False, server_default="0"),
    Column("fruitless", Integer, nullable=False, server_default="0"),
    Column("retries", Integer, nullable=False, server_default="0"),
    Column("cause", String(36)),
    Column("trace", String(55)),
    Column("correlation_id", String(100)),
    Column("reason", String(200)),
    Column("read_set", JSON(none_as_null=True)),
    Column("report", JSON(none_as_null=True)),
    Column("error", JSON(none_as_null=True)),
    Column("requested_by", String(200), nullable=False),
    Column("cancel_requested", Boolean, nullable=False, default=False),
    Column("not_before", Float, nullable=False, default=0.0),
    Column("lease_until", Float),
    Column("lease_owner", String(200)),
    Column("rung_at", Float),
    Column("created_at", UtcDateTime(), nullable=False),
    Column("started_at", UtcDateTime()),
    Column("finished_at", UtcDateTime()),
    UniqueConstraint("id"),
    ForeignKeyConstraint(["org_id", "work_kind", "work_name"], ["lanes.org_id", "lanes.work_kind", "lanes.work_name"]),
    Index(
        "one_claimed_run_per_lane",
        "org_id",
        "work_kind",
        "work_name",
        "lane",
        unique=True,
        sqlite_where=text("state = 'running'"),
        postgresql_where=text("state = 'running'"),
    ),
    Index("runs_by_state", "org_id", "state", "id"),
    Index("runs_of_some_work", "org_id", "work_kind", "work_name", "id"),
    # Only of those that are at their end: what looks for others by their lanes is not to take this index for its own.
    Index(
        "ended_runs_of_some_work",
        "org_id",
        "work_kind",
        "work_name",
        "state",
        "id",
        sqlite_where=text("state NOT IN ('queued', 'running')"),
        postgresql_where=text("state NOT IN ('queued', 'running')"),
    ),
    Index(
        "queued_runs_by_ring",
        "rung_at",
        sqlite_where=text("state = 'queued'"),
        postgresql_where=text("state = 'queued'"),
    ),
    Index(
        "running_runs_by_lease",
        "lease_until",
        sqlite_where=text("state = 'running'"),
        postgresql_where=text("state = 'running'"),
    ),
    Index(
        "queued_runs_of_a_lane",
        "org_id",
        "work_kind",
        "work_name",
        "lane",
        "id",
        sqlite_where=text("state = 'queued'"),
        postgresql_where=text("state = 'queued'"),
    ),
    Index(
        "begun_runs_of_a_lane",
        "org_id",
        "work_kind",
        "work_name",
        "lane",
        sqlite_where=text("state IN ('queued', 'running') AND attempt > 0"),
        postgresql_where=text("state IN ('queued', 'running') AND attempt > 0"),
    ),
    Index(
        "one_run_per_cause",
        "org_id",
        "work_kind",
        "work_name",
        "cause",
        unique=True,
        sqlite_where=text("cause IS NOT NULL"),
        postgresql_where=text("cause IS NOT NULL"),
    ),
)

# Who runs after whom: the `schedule.after` of the latest revisions, so that a commit finds its followers by an index.
followers = Table(
    "followers",
    metadata,
    Column("org_id", String(63), primary_key=True),
    Column("after", String(63), primary_key=True),
    Column("pipeline", String(63), primary_key=True),
    ForeignKeyConstraint(["org_id", "pipeline"], ["pipelines.org_id", "pipelines.name"]),
)

# Processes of the installation; they serve every organization.
workers = Table(
    "workers",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("roles", String(40), nullable=False),
    Column("host", String(200), nullable=False),
    Column("process", String(200), nullable=False),
    Column("version", String(40), nullable=False),
    Column("concurrency", Integer, nullable=False),
    Column("running", Integer, nullable=False),
    Column("state", String(20), nullable=False),
    Column("drain_requested", Boolean, nullable=False, default=False),
    Column("started_at", UtcDateTime(), nullable=False),
    Column("seen", Float, nullable=False),
    Index("workers_by_sight", "seen"),
)

run_transitions = Table(
    "run_transitions",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("org_id", String(63), nullable=False),
    Column("run_id", String(36), nullable=False),
    Column("before", String(12)),
    Column("after", String(12), nullable=False),
    Column("fence", Integer, nullable=False),
    Column("actor", String(200), nullable=False),
    Column("reason", String(200), nullable=False),
    Column("at", UtcDateTime(), nullable=False),
    ForeignKeyConstraint(["org_id", "run_id"], ["runs.org_id", "runs.id"]),
    Index("transitions_of_a_run", "org_id", "run_id", "id"),
)

events = Table(
    "events",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("org_id", String(63), ForeignKey("organizations.id"), nullable=False),
    Column("event_type", String(60), nullable=False),
    Column("run_id", String(36)),
    Column("payload", JSON, nullable=False),
    Column("created_at", UtcDateTime(), nullable=False),
    Index("events_of_a_run", "org_id", "run_id", "id"),
)

# The last event that each subscriber was told. The newest event must stay: SQLite would give its id again.
event_cursors = Table(
    "event_cursors",
    metadata,
    Column("subscriber", String(60), primary_key=True),
    Column("last", Integer, nullable=False),
    Column("holder", String(200)),
    Column("held_until", Float),
)

api_keys = Table(
    "api_keys",
    metadata,
    _organization(),
    Column("prefix", String(16), primary_key=True),
    Column("digest", String(64), nullable=False),
    Column("subject", String(200), nullable=False),
    Column("roles", JSON, nullable=False),
    Column("created_at", UtcDateTime(), nullable=False),
    Column("expires_at", UtcDateTime()),
    Column("revoked_at", UtcDateTime()),
    UniqueConstraint("prefix"),
)

audit = Table(
    "audit",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("org_id", String(63), ForeignKey("organizations.id"), nullable=False),
    Column("subject", String(200), nullable=False),
    Column("action", String(60), nullable=False),
    Column("object", String(200), nullable=False),
    Column("at", UtcDateTime(), nullable=False),
)
