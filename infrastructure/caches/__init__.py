"""Adapters of ICache."""
