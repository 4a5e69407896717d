"""Rules for rows and runs, and the measures that they judge."""
