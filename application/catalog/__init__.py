"""Documents of every kind: put, planned, applied, deleted in one story."""
