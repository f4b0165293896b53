"""Keys in files, and what is made with them: hashes that say nothing to who lacks the key."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
from pathlib import Path

LEAST = 16  # bytes of a key
MOST = 4096  # bytes of its file


def keyed_hash(key: bytes, purpose: str, text: str) -> str:
    """HMAC-SHA256 in hex. Hashes for different purposes cannot be compared.

    >>> keyed_hash(b"k" * 32, "user", "ann")[:8], keyed_hash(b"k" * 32, "session", "ann")[:8]
    ('94a65524', 'f349fea4')
    """
    return hmac.new(key, f"{purpose}\0{text}".encode(), hashlib.sha256).hexdigest()


def read_key(path: Path) -> bytes:
    """The key in a file, white space at its ends left out. ValueError never shows it."""
    cure = f"it must hold at least {LEAST} bytes, such as `openssl rand -hex 32` makes them"
    try:
        with path.open("rb") as file:
            key = file.read(MOST + 1).strip()
    except OSError as error:
        raise ValueError(
            f"cannot be read ({error.strerror}): name a file that this user may read; {cure}"
        ) from None
    if len(key) < LEAST:
        raise ValueError(f"has a key of {len(key)} bytes: {cure}")
    if len(key) > MOST:
        raise ValueError(f"is larger than {MOST} bytes, so it is no key's file: {cure}")
    return key


def read_by_others(path: Path) -> bool:
    """Whether other users of this machine may read the file."""
    with contextlib.suppress(OSError):
        return bool(path.stat().st_mode & 0o077)
    return False
