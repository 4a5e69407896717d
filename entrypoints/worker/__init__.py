"""The worker: consume the doorbell, execute runs, tend."""
