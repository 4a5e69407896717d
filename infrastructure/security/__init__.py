"""Keys and who they belong to."""
