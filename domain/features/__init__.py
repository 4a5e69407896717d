"""Features: what is served of an entity, and how what is cached of it stays what is stored."""
