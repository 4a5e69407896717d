"""What the application needs of the outside world, one interface a file; `I` marks these classes and nothing else."""
