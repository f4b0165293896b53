"""What a core and its trainer's process say to each other: calls and answers as in
`streams.core_protocol`, with arrays as bytes."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

LESSON = (np.int32, np.int32, np.int8, np.int8, np.int64)  # user, item, kind, price, ts


class Setup(msgspec.Struct, array_like=True):
    """What the trainer is made from."""

    width: int
    channels: int
    hidden: int
    rows: int  # items with a vector, at most
    seed: int
    device: str
    slot_mask: int


class Packed(msgspec.Struct, array_like=True):
    """An array of 4-byte numbers."""

    shape: tuple[int, ...]
    kind: str
    raw: bytes


class Taught(msgspec.Struct):
    """The answer to a lesson."""

    dense: dict[str, Packed]
    item: Packed
    vector: Packed
    bias: Packed
    loss: float
    skipped: int
    seconds: float


def pack(array: np.ndarray) -> Packed:
    return Packed(array.shape, array.dtype.str, array.tobytes())


def array_of(packed: Packed) -> np.ndarray:
    """Read-only.

    >>> array_of(pack(np.array([[1.0, 2.0]], np.float32))).tolist()
    [[1.0, 2.0]]
    """
    return np.frombuffer(packed.raw, packed.kind).reshape(packed.shape)


def unpack(columns: Sequence[bytes]) -> list[np.ndarray]:
    """The columns of a lesson."""
    return [np.frombuffer(raw, kind) for raw, kind in zip(columns, LESSON, strict=True)]
