"""The port to the users' tables: the sum of what reads them and what writes them, with the promises of both."""

from domain.ports.batches import Batch as Batch
from domain.ports.batches import Committed as Committed
from domain.ports.batches import Conversion as Conversion
from domain.ports.batches import Conversions as Conversions
from domain.ports.batches import EncodedRows as EncodedRows
from domain.ports.batches import JudgedBatch as JudgedBatch
from domain.ports.batches import SourceBatch as SourceBatch
from domain.ports.batches import TextRows as TextRows
from domain.ports.batches import are_large as are_large
from domain.ports.destination import IDestination as IDestination
from domain.ports.destination import IOwner as IOwner
from domain.ports.destination import IPassingWriter as IPassingWriter
from domain.ports.destination import ISelectingWriter as ISelectingWriter
from domain.ports.destination import ITextWriter as ITextWriter
from domain.ports.destination import IWriter as IWriter
from domain.ports.destination import Judge as Judge
from domain.ports.destination import Publication as Publication
from domain.ports.destination import StreamSelection as StreamSelection
from domain.ports.destination import Target as Target
from domain.ports.destination import passage_of as passage_of
from domain.ports.quarantine import IRefusedRows
from domain.ports.reading import IPassingReader as IPassingReader
from domain.ports.reading import IReader as IReader
from domain.ports.reading import ITextReader as ITextReader
from domain.ports.source import BATCH_BYTES as BATCH_BYTES
from domain.ports.source import ISource as ISource
from domain.ports.store import IStore as IStore
from domain.ports.store import StoreHealth as StoreHealth


class IDataStore(ISource, IDestination, IRefusedRows):
    """Tabular data of the users, read and written in batches.

    1. Values travel as parameters, never inside the query text.
    2. Replaying a batch with its checkpoint leaves one copy.
    3. A stale fence changes nothing and raises `FencedError`.
    4. A failed commit leaves no visible rows.
    5. Trouble on the way raises `StoreUnavailableError`, which is retryable; a store that turns us away until somebody
       changes something raises `StoreRefusedError`, which is not. No message holds a value.
    6. A take-over raises the fence on every row of its lane and returns what was committed. A fence that is not above
        the lane's is refused, but for the claim that has put it there and shows the token of that take-over.
    7. Opening a read set puts its streams at the beginning, with an empty staging table.
    8. Publishing is all or nothing: rows, verdict, watermark, and the table itself, which a run with a staging table
        makes only then; it happens once.
    9. After a seal no writer commits, whatever its fence, until the next take-over; a table that the read set made and
       in which nothing landed is gone.
    10. A reader yields rows in order, strictly after the position it is given; what was committed plus what is read
        after it is the whole. A position is text that the store reads back to the same value, of every type that has an
        order; others are refused by name.
    11. A table that one pipeline replaces takes no other writer.
    12. A query that is not one read-only statement is refused and changes nothing.
    13. Planning refuses cursors that are NULL or where no read ever gets, and takes no row at or above `hi`.
    14. A batch whose types do not fit the table is refused whole; no value is ever stored changed.
    15. A table is described with its columns, types of our names, and primary key; an absent one is None.
    16. Closing releases everything, also when opening failed; a closed store can be opened again.
    17. The streams of a partitioned read cover every row once, NULLs of the partition column in the first.
    18. Readers of one shared snapshot, and batches of one reader, see the rows of one moment whatever is written,
        emptied or replaced meanwhile; nobody who waits to do so makes them wait. A store that cannot share one hands
        out None.
    19. A cancelled call interrupts what the store is doing and leaves nothing half-written.
    20. Discarding a lane drops the table that its pipeline alone has written, with everything remembered of it; a table
        that another pipeline writes too is left as it is.
    21. A merge leaves, of all rows read, the last of each key, as the store holds keys equal; a row that says its key
        is gone deletes it. It tells how many rows it inserted, updated and deleted, in the checkpoint too.
    22. Keys that a full read lacks are deleted or marked up to a share, all of them or none; refused rows lack nothing.
    23. Columns that a table lacks are added before rows come, once, also to an open stage.
    24. A lookback begins a read before the watermark and never moves it back.
    25. Rows that pass undecoded, or within the database, land as they would have landed decoded, under the same fence.
    26. A row larger than a batch may be is refused by name, and nothing of its batch lands.
    27. Refused rows are listed in order, strictly after a place; only a published run's may be replayed. Once a run
        that has read such a row again by its key is published, it is superseded; so is each once the table is replaced,
        and once a whole read is merged, unless a run with parameters that it chose itself refused it and nothing is
        deleted that is not read; and one of which a later row of its merge key has landed.
    28. What a replay lands is marked in the same transaction, once; what is refused again stays as it was, and what
        another run has settled since it was read does not land and counts as not read. Of a merged
        row that is not proven to be the newest of its key, and may be older than what is there or was, only the reason
        changes. A batch ends as its rows would one by one, and what is not there may have been once anybody deletes.
    29. Of two attempts under one fence only the later one writes: whatever it does names the token of its take-over.
    30. A read by a cursor ends just above the greatest value seen, and never above what may still commit; what the
        source cannot tell of that is said.
    31. A table that is replaced keeps what it has besides its rows, or is refused; rows of others that refer to it are
        reached by nothing but the deletion of their own.
    32. A key that the store does not prove is no less exact: rows that share their place in the order come in one
        batch, and with NULL in it the read has no order, so that it is staged.
    33. Nothing lands, nor is published, where others have emptied or exchanged the table since rows of the read set
        landed in it (`destination.changed`); a table that is only written anew, as by VACUUM FULL, is the same one.
    34. A query that gives two columns one name is refused (`query.duplicate_column`): neither is taken for the other.
    """
