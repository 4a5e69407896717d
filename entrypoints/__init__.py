"""Who calls: parse, call one use case, render."""
