"""Logs and telemetry."""
