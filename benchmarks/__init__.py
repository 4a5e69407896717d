"""The program beside its peers: one line per measure with ours, theirs and the ratio."""
