"""Adapters of IRecords and IUnitOfWork: the platform's own records, in SQLAlchemy on SQLite or Postgres."""
