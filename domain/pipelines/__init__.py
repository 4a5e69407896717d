"""Pipelines: what a document asks for, its steps, its plan and its tests."""
