"""Vectors of texts in a file, so that a backtest reads a catalogue once: safetensors' format.

The file is a cache: one that is damaged, or of something else, counts as none.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

KEY_BYTES = 16


def cache_folder() -> Path:
    """The user's folder for what can be made again."""
    return Path.home() / ".cache" / "freshrec"


def read_vectors(path: Path, width: int) -> dict[str, bytes]:
    """By key, vectors (width,) f4 as bytes; none when there is no such file."""
    try:
        tensors = load_file(path)
        keys, vectors = tensors["keys"], tensors["vectors"]
    except (OSError, SafetensorError, KeyError):
        return {}
    if keys.dtype != np.uint8 or keys.shape != (len(vectors), KEY_BYTES):
        return {}
    if vectors.dtype != np.float32 or vectors.shape[1:] != (width,):
        return {}
    return {k.tobytes().hex(): v.tobytes() for k, v in zip(keys, vectors, strict=True)}


def write_vectors(path: Path, vectors: dict[str, bytes]) -> None:
    """Write them as a new file, in place of the one before. A folder that is read-only is no fault:
    they are made again next time."""
    keys = np.frombuffer(bytes.fromhex("".join(vectors)), np.uint8).reshape(-1, KEY_BYTES)
    rows = np.frombuffer(b"".join(vectors.values()), np.float32).reshape(len(keys), -1)
    beside = path.with_name(f"{path.name}.{os.getpid()}.new")
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({"keys": keys.copy(), "vectors": rows.copy()}, beside)
        beside.replace(path)
