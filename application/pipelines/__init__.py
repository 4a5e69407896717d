"""Pipelines: launched, executed, tended, previewed, reset."""
