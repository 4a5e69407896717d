"""How, and with which vendor: one file or folder per technology, each implementing a port of `domain`.

Knows nothing of `application`; only `entrypoints.composition` names these classes.
"""
