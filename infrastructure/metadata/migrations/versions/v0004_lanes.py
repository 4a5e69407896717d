"""A run is a run of some work, of which pipelines are one kind; the fence of it is in a table of its own (M1)."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

_OF_WORK = ["org_id", "work_kind", "work_name"]
_KEPT = (
    "org_id", "id", "revision", "lane", "state", "request", "fence", "attempt", "progress", "fruitless", "retries",
    "cause", "trace", "reason", "read_set", "report", "error", "requested_by", "cancel_requested", "not_before",
    "lease_until", "lease_owner", "rung_at", "created_at", "started_at", "finished_at",
)  # fmt: skip


def upgrade() -> None:
    is_sqlite = op.get_bind().dialect.name == "sqlite"
    if not is_sqlite:
        # A process of the version before may be claiming: no fence goes up while it is copied.
        op.execute("LOCK TABLE runs, pipelines IN ACCESS EXCLUSIVE MODE")
    op.create_table(
        "lanes",
        sa.Column("org_id", sa.String(length=63), nullable=False),
        sa.Column("work_kind", sa.String(length=20), nullable=False),
        sa.Column("work_name", sa.String(length=63), nullable=False),
        sa.Column("fence", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["org_id"], ["organizations.id"]),
        sa.PrimaryKeyConstraint("org_id", "work_kind", "work_name"),
    )
    op.execute(
        "INSERT INTO lanes (org_id, work_kind, work_name, fence) SELECT org_id, 'pipeline', name, fence FROM pipelines"
    )
    op.drop_column("pipelines", "fence")
    if is_sqlite:
        _make_runs_anew()
        _index_what_stayed()
    else:
        _alter_runs()
    _index_by_work()


def _alter_runs() -> None:
    for name in ("one_claimed_run_per_lane", "runs_of_a_pipeline", "queued_runs_of_a_lane", "begun_runs_of_a_lane",
                 "one_run_per_cause"):  # fmt: skip
        op.drop_index(name, "runs")
    op.drop_constraint("runs_org_id_pipeline_fkey", "runs")
    op.alter_column("runs", "pipeline", new_column_name="work_name")
    op.add_column("runs", sa.Column("work_kind", sa.String(length=20), nullable=False, server_default="pipeline"))
    op.alter_column("runs", "work_kind", server_default=None)
    op.create_foreign_key(None, "runs", "lanes", _OF_WORK, _OF_WORK)


def _make_runs_anew() -> None:
    """SQLite lets go of no foreign key otherwise; what refers to the table is made anew with it."""
    op.create_table(
        "new_runs",
        sa.Column("org_id", sa.String(length=63), nullable=False),
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("work_kind", sa.String(length=20), nullable=False),
        sa.Column("work_name", sa.String(length=63), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("lane", sa.String(length=100), nullable=False),
        sa.Column("state", sa.String(length=12), nullable=False),
        sa.Column("request", sa.JSON(), nullable=False),
        sa.Column("fence", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("progress", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("fruitless", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("retries", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("cause", sa.String(length=36), nullable=True),
        sa.Column("trace", sa.String(length=55), nullable=True),
        sa.Column("reason", sa.String(length=200), nullable=True),
        sa.Column("read_set", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("report", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("error", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("requested_by", sa.String(length=200), nullable=False),
        sa.Column("cancel_requested", sa.Boolean(), nullable=False),
        sa.Column("not_before", sa.Float(), nullable=False),
        sa.Column("lease_until", sa.Float(), nullable=True),
        sa.Column("lease_owner", sa.String(length=200), nullable=True),
        sa.Column("rung_at", sa.Float(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(_OF_WORK, [f"lanes.{name}" for name in _OF_WORK]),
        sa.ForeignKeyConstraint(["org_id"], ["organizations.id"]),
        sa.PrimaryKeyConstraint("org_id", "id"),
        sa.UniqueConstraint("id"),
    )
    op.create_table(
        "new_run_transitions",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("org_id", sa.String(length=63), nullable=False),
        sa.Column("run_id", sa.String(length=36), nullable=False),
        sa.Column("before", sa.String(length=12), nullable=True),
        sa.Column("after", sa.String(length=12), nullable=False),
        sa.Column("fence", sa.Integer(), nullable=False),
        sa.Column("actor", sa.String(length=200), nullable=False),
        sa.Column("reason", sa.String(length=200), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["org_id", "run_id"], ["new_runs.org_id", "new_runs.id"]),
        sa.PrimaryKeyConstraint("id"),
    )
    kept = ", ".join(_KEPT)
    op.execute(f"INSERT INTO new_runs ({kept}, work_kind, work_name) SELECT {kept}, 'pipeline', pipeline FROM runs")
    history = 'id, org_id, run_id, "before", "after", fence, actor, reason, at'
    op.execute(f"INSERT INTO new_run_transitions ({history}) SELECT {history} FROM run_transitions")
    for name in ("run_transitions", "runs"):
        op.drop_table(name)
    for name in ("runs", "run_transitions"):
        op.rename_table(f"new_{name}", name)


def _index_what_stayed() -> None:
    op.create_index("transitions_of_a_run", "run_transitions", ["org_id", "run_id", "id"])
    for name, columns, state in (
        ("unfinished_runs", ["state", "created_at"], "state IN ('queued', 'running')"),
        ("queued_runs_by_ring", ["rung_at"], "state = 'queued'"),
        ("running_runs_by_lease", ["lease_until"], "state = 'running'"),
    ):
        op.create_index(name, "runs", columns, sqlite_where=sa.text(state))


def _index_by_work() -> None:
    op.create_index("runs_of_some_work", "runs", [*_OF_WORK, "id"])
    for name, more, state, is_unique in (
        ("one_claimed_run_per_lane", ["lane"], "state = 'running'", True),
        ("queued_runs_of_a_lane", ["lane", "id"], "state = 'queued'", False),
        ("begun_runs_of_a_lane", ["lane"], "state IN ('queued', 'running') AND attempt > 0", False),
        ("one_run_per_cause", ["cause"], "cause IS NOT NULL", True),
    ):
        where = sa.text(state)
        columns = [*_OF_WORK, *more]
        op.create_index(name, "runs", columns, unique=is_unique, sqlite_where=where, postgresql_where=where)
