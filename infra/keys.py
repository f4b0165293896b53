"""Keys in files, and what is made with them: hashes that say nothing to who lacks the key."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import secrets
from pathlib import Path

from infra.checkpoints import CheckpointsError

ERASURE_KEY = "erasure.key"
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


def erasure_key(folder: Path) -> bytes:
    """The key that forgotten users are hashed with, made when there is none.

    Workers that share the folder share the key. Raises CheckpointsError.
    """
    path = folder / ERASURE_KEY
    try:
        if not path.exists():
            _make(path)
        return read_key(path)
    except OSError as error:
        raise CheckpointsError(
            f"the key {path} cannot be made ({error.strerror}): make room or give this user the "
            "right to write there, or name another folder in FRESHREC_CHECKPOINTS"
        ) from None
    except ValueError as error:
        raise CheckpointsError(
            f"the key {path} {error}; put back a copy of it: without it nobody knows who was "
            "forgotten. Only if there is none, remove the file: a new key is made"
        ) from None


def _make(path: Path) -> None:
    """Whole or not there; who comes second finds the other's."""
    beside = path.with_name(f"{path.name}.{os.getpid()}.new")
    beside.unlink(missing_ok=True)
    number = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(number, "w") as file:
        file.write(secrets.token_hex(32) + "\n")
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(beside, path)
    except FileExistsError:
        pass
    except OSError:  # a file system without links
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
