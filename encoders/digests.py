"""What tells files from others, so that vectors of one model are never taken for another's."""

from __future__ import annotations

import hashlib
from pathlib import Path


def digest_of(*files: Path) -> str:
    """12 hexadecimal digits of what files contain. Raises OSError."""
    digest = hashlib.blake2b(digest_size=6)
    for each in files:
        with each.open("rb") as file:
            while piece := file.read(1 << 20):
                digest.update(piece)
    return digest.hexdigest()
