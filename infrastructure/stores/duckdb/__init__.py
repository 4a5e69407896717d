"""IDataStore on a DuckDB file: the embedded default."""
