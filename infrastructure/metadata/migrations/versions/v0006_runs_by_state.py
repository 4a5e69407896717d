"""Indexes that find the runs of a state, newest first, in place of one that nothing asks for."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

_ENDED = sa.text("state NOT IN ('queued', 'running')")


def upgrade() -> None:
    op.drop_index("unfinished_runs", "runs")
    op.create_index("runs_by_state", "runs", ["org_id", "state", "id"])
    op.create_index(
        "ended_runs_of_some_work",
        "runs",
        ["org_id", "work_kind", "work_name", "state", "id"],
        sqlite_where=_ENDED,
        postgresql_where=_ENDED,
    )
