"""Pipelines: what a document asks for, what a run reads, and when it may move on."""
