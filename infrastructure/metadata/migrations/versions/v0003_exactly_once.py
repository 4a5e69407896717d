"""Retries, causes and traces of runs, followers, workers, and the indexes that keep claims fast (S3, R4, X1)."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.execute("UPDATE runs SET rung_at = 0 WHERE rung_at IS NULL")
    # Columns are only added: making the table anew on SQLite would break what refers to it.
    op.add_column("runs", sa.Column("retries", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("runs", sa.Column("cause", sa.String(length=36), nullable=True))
    op.add_column("runs", sa.Column("trace", sa.String(length=55), nullable=True))
    for name, columns, state in (
        ("queued_runs_by_ring", ["rung_at"], "queued"),
        ("running_runs_by_lease", ["lease_until"], "running"),
        ("queued_runs_of_a_lane", ["org_id", "pipeline", "lane", "id"], "queued"),
    ):
        where = sa.text(f"state = '{state}'")
        op.create_index(name, "runs", columns, sqlite_where=where, postgresql_where=where)
    begun = sa.text("state IN ('queued', 'running') AND attempt > 0")
    op.create_index(
        "begun_runs_of_a_lane",
        "runs",
        ["org_id", "pipeline", "lane"],
        sqlite_where=begun,
        postgresql_where=begun,
    )
    caused = sa.text("cause IS NOT NULL")
    op.create_index(
        "one_run_per_cause",
        "runs",
        ["org_id", "pipeline", "cause"],
        unique=True,
        sqlite_where=caused,
        postgresql_where=caused,
    )
    op.add_column("events", sa.Column("run_id", sa.String(length=36), nullable=True))
    op.create_index("events_of_a_run", "events", ["org_id", "run_id", "id"])
    op.create_table(
        "followers",
        sa.Column("org_id", sa.String(length=63), nullable=False),
        sa.Column("after", sa.String(length=63), nullable=False),
        sa.Column("pipeline", sa.String(length=63), nullable=False),
        sa.ForeignKeyConstraint(["org_id", "pipeline"], ["pipelines.org_id", "pipelines.name"]),
        sa.PrimaryKeyConstraint("org_id", "after", "pipeline"),
    )
    op.create_table(
        "workers",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("roles", sa.String(length=40), nullable=False),
        sa.Column("host", sa.String(length=200), nullable=False),
        sa.Column("process", sa.String(length=200), nullable=False),
        sa.Column("version", sa.String(length=40), nullable=False),
        sa.Column("concurrency", sa.Integer(), nullable=False),
        sa.Column("running", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("drain_requested", sa.Boolean(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("seen", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("workers_by_sight", "workers", ["seen"])
