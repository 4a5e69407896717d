"""Large pieces of memory go back to the system as soon as they are not needed."""

import ctypes
import os

_MMAP_THRESHOLD = -3
_LARGE_BYTES = 4 * 1024 * 1024


def give_back_large() -> None:
    """Have the C library map what is large by itself. Once it has freed such a piece, it takes later ones, up to
    32 MiB, from where they leave holes. Does nothing where `MALLOC_MMAP_THRESHOLD_` says something, or in another
    library than glibc.
    """
    if "MALLOC_MMAP_THRESHOLD_" in os.environ:
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, _LARGE_BYTES)
