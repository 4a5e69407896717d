"""Settings: one frozen tree, where each comes from, and what a value has to be."""
