"""IDataStore on a Postgres."""
