"""Adapters of ISecretProvider."""
