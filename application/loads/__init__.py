"""Loads: what a run of a pipeline does, from taking its lane over to publishing what it read."""
