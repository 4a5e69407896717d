"""Commits to a DuckDB file, which can convert text while it writes it: that takes half the work of doing one after the
other.
"""

from collections.abc import Callable

from domain.failpoints import fail_at
from domain.loads.checkpoint import CheckpointUpdate
from domain.ports.data_store import Conversions, ITextWriter, TextRows, passage_of
from infrastructure.stores.duckdb.session import DuckDBSession
from infrastructure.stores.landing import landing_gone
from infrastructure.stores.sql.writer import SqlWriter, metadata_of


class DuckDBWriter(SqlWriter, ITextWriter):
    """Commits batches of one stream, and text in long transactions."""

    async def commit_texts(
        self, rows: TextRows, conversions: Conversions, landed: int, checkpoint_of: Callable[[], CheckpointUpdate]
    ) -> None:
        await self._thread.call(self._commit_texts, rows, conversions, landed, checkpoint_of)

    def _commit_texts(
        self, rows: TextRows, conversions: Conversions, landed: int, checkpoint_of: Callable[[], CheckpointUpdate]
    ) -> None:
        session, checkpoints, landing = self._session, self._checkpoints, self._landing
        assert isinstance(session, DuckDBSession)
        constants = metadata_of(passage_of(self._target))
        fail_at("batch.before_begin")
        with session.transaction():
            checkpoints.check_standing(session.execute(*checkpoints.standing(session.for_update)))
            held = session.hold(landing)
            if held is None:
                raise landing_gone(landing)
            self._landing_columns(held, [*(column.name for column in conversions.columns), *constants])
            self.check_landing(landed, self._session)
            session.insert_texts(landing, rows, conversions, constants)
            fail_at("batch.mid_rows")
            checkpoint = checkpoint_of()
            self._advance(checkpoint)
        fail_at("batch.commit_sent")
        fail_at("batch.after_commit")
        self.look_again(checkpoint)
