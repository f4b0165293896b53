"""Files of arrays: safetensors' format, written and read as streams, with a digest.

What is kept of a core is hundreds of megabytes: it is written array by array, from where it lies,
since a copy of it all would not fit beside it. The digest is made on the way.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from pathlib import Path
from typing import IO, Any

import msgspec
import numpy as np

from online.state import State, flattened, unflattened

PIECE = 1 << 22  # bytes that are written or read at once
LONGEST_HEAD = 1 << 26
_TYPES = {
    "f8": "F64", "f4": "F32", "f2": "F16", "i8": "I64", "i4": "I32", "i2": "I16", "i1": "I8",
    "u8": "U64", "u4": "U32", "u2": "U16", "u1": "U8", "b1": "BOOL",
}  # fmt: skip
_KINDS = {name: kind for kind, name in _TYPES.items()}
_PLAIN = "plain"  # MessagePack of what is no array


class Damaged(Exception):
    """A file is not what was written."""


def write_tree(path: Path, tree: State) -> str:
    """Write a tree of arrays and plain values to a new file; its SHA-256. Raises OSError.

    The file is on the disk then, but its name may not be: sync its folder.
    """
    arrays, plain = flattened(tree)
    body = msgspec.msgpack.encode(plain)
    arrays[_PLAIN] = np.frombuffer(body, np.uint8)
    head = _head(arrays)
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for part in (struct.pack("<Q", len(head)), head):
            file.write(part)
            digest.update(part)
        for array in arrays.values():
            flat = _bytes_of(np.ascontiguousarray(array))
            for at in range(0, len(flat), PIECE):
                file.write(flat[at : at + PIECE])
                digest.update(flat[at : at + PIECE])
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def read_tree(path: Path, digest: str) -> State:
    """The tree that `write_tree` wrote; its arrays may be written to. Raises OSError, Damaged."""
    total = hashlib.sha256()
    with path.open("rb") as file:
        try:
            arrays = _arrays(file, total)
            plain = msgspec.msgpack.decode(arrays.pop(_PLAIN).tobytes())
            if file.read(1):
                raise ValueError("it is longer than its head says")
        except (ValueError, KeyError, TypeError, struct.error, MemoryError) as fault:
            raise Damaged(f"it cannot be read ({fault})") from None
    if total.hexdigest() != digest:
        raise Damaged("its digest is not the one that was noted when it was written")
    return unflattened(arrays, plain)


def _head(arrays: dict[str, np.ndarray]) -> bytes:
    about: dict[str, Any] = {}
    at = 0
    for name, array in arrays.items():
        kind = _TYPES[array.dtype.str[1:]]
        about[name] = {"dtype": kind, "shape": array.shape, "data_offsets": [at, at + array.nbytes]}
        at += array.nbytes
    head = json.dumps(about, separators=(",", ":")).encode()
    return head + b" " * (-len(head) % 8)


def _arrays(file: IO[bytes], digest: Any) -> dict[str, np.ndarray]:
    first = file.read(8)
    (length,) = struct.unpack("<Q", first)
    if length > LONGEST_HEAD:
        raise ValueError(f"a head of {length} bytes")
    head = file.read(length)
    digest.update(first)
    digest.update(head)
    left = os.fstat(file.fileno()).st_size - 8 - length
    found = {}
    for name, about in json.loads(head).items():
        kind, shape = np.dtype(_KINDS[about["dtype"]]), tuple(map(int, about["shape"]))
        size = kind.itemsize * int(np.prod(shape, dtype=np.int64))
        if min(shape, default=0) < 0 or size > left:
            raise ValueError(f"{name} should have {size} bytes, {left} are left")
        left -= size
        array = np.empty(shape, kind)
        _fill(file, _bytes_of(array), digest)
        found[name] = array
    return found


def _fill(file: IO[bytes], flat: memoryview, digest: Any) -> None:
    for at in range(0, len(flat), PIECE):
        piece = flat[at : at + PIECE]
        if file.readinto(piece) != len(piece):  # type: ignore[attr-defined]
            raise ValueError("it ends early")
        digest.update(piece)


def _bytes_of(array: np.ndarray) -> memoryview:
    return memoryview(array.reshape(-1).view(np.uint8)) if array.size else memoryview(b"")  # type: ignore[arg-type]
