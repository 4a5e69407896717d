"""The id of the request that asked for a run, so that lines in every process name it."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.add_column("runs", sa.Column("correlation_id", sa.String(length=100), nullable=True))
