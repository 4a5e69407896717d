"""A load: what is read, how far, by which way, what a destination remembers, and what is published."""
