"""The only place that names adapters and the container library: what is built, from which settings, in which order."""
