"""A cursor for each subscriber of events, in place of a mark on each event that all had been told."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

_SUBSCRIBERS = ("followers", "telemetry")


def upgrade() -> None:
    connection = op.get_bind()
    if connection.dialect.name == "postgresql":
        # A process of the version before may be storing events: they are there, or come after all that are.
        op.execute("LOCK TABLE events IN ACCESS EXCLUSIVE MODE")
    op.create_table(
        "event_cursors",
        sa.Column("subscriber", sa.String(length=60), nullable=False),
        sa.Column("last", sa.Integer(), nullable=False),
        sa.Column("holder", sa.String(length=200), nullable=True),
        sa.Column("held_until", sa.Float(), nullable=True),
        sa.PrimaryKeyConstraint("subscriber"),
    )
    last = connection.execute(sa.text("SELECT coalesce(max(id), 0) FROM events")).scalar_one()
    # What was not told may stand among what was; a cursor has no holes, so it is put behind all of it.
    columns = "org_id, event_type, run_id, payload, created_at"
    op.execute(f"INSERT INTO events ({columns}) SELECT {columns} FROM events WHERE sent_at IS NULL ORDER BY id")
    op.execute(f"DELETE FROM events WHERE sent_at IS NULL AND id <= {last}")
    cursors = sa.table("event_cursors", sa.column("subscriber"), sa.column("last"))
    op.bulk_insert(cursors, [{"subscriber": name, "last": last} for name in _SUBSCRIBERS])
    op.drop_index("unsent_events", "events")
    op.drop_column("events", "sent_at")
