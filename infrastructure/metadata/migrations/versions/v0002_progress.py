"""Progress of a run, so that one that kills its workers is told from one that moves on (R4)."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    for name in ("progress", "fruitless"):
        op.add_column("runs", sa.Column(name, sa.Integer(), nullable=False, server_default="0"))
