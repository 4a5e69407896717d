"""Adapters of IDataStore: the users' tables."""
