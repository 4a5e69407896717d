"""What every session of ours with a Postgres has, that of records and that of a store."""
