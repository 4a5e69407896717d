"""What a user's SQL is, as the engines' own parsers say: pure functions of text, which a process apart may run."""
