"""Runs: asked for, claimed, executed and brought to their end, whatever they are runs of."""
