"""Adapters of ITransformer."""
