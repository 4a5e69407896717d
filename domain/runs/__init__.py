"""A run and its states."""
