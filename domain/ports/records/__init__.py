"""What the platform keeps of its own, a noun in each file."""
