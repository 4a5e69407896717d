"""Rows between systems: Arrow, JSON and DuckDB's types, and what a text is exactly."""
