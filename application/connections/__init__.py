"""Connections: opened when first used, tested, looked into."""
