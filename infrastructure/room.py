"""Whether the disk that a file lies on has room for what is written next."""

import os
from pathlib import Path

LEAST_BYTES = 1024 * 1024
"""What a commit of the records or of a small batch needs; with less, one may land and the next may not."""


def lacks_room(path: Path) -> bool:
    """Say whether less than `LEAST_BYTES` are free for this user where `path` lies; False where nobody can tell."""
    try:
        found = os.statvfs(path.parent)
    except OSError:
        return False
    # Some file systems count no blocks at all, which says nothing about their room.
    return found.f_blocks > 0 and found.f_bavail * found.f_frsize < LEAST_BYTES


def room_of(folder: Path) -> tuple[int, float] | None:
    """The bytes that are free for this user where a folder lies, or would be made, and their share of the disk; None
    where nobody can tell.
    """
    for place in (folder, *folder.parents):
        try:
            found = os.statvfs(place)
        except FileNotFoundError:
            continue
        except OSError:
            return None
        return (found.f_bavail * found.f_frsize, found.f_bavail / found.f_blocks) if found.f_blocks > 0 else None
    return None
