"""ISource over local CSV and Parquet files, which can only be read from."""
