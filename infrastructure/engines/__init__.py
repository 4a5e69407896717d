"""Adapters of IEngine: where streams run."""
