"""Runs migrations on the connection that `records.py` hands over, in its transaction."""

from alembic import context

from infrastructure.metadata.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
