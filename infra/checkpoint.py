"""Checkpoints of the sequence encoder: a folder with safetensors and JSON, whole or not there.

DIR/encoder.safetensors   weights, item vectors, the optimiser's moments
DIR/encoder.json          what they are: shape, items in order, how they were made, digest
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from infra.durable import sync_folder, write_durably

TENSORS, ABOUT = "encoder.safetensors", "encoder.json"
FORMAT = 1


class CheckpointError(Exception):
    """A checkpoint cannot be written or read; the message names the path and the cure."""


class About(msgspec.Struct):
    """What a checkpoint holds."""

    format: int
    width: int
    channels: int
    hidden: int
    items: list[str]  # ids, in the order of the table's rows
    made: dict[str, Any]  # how: command, log, scores
    digest: str = ""  # of the tensors' file


def refuse_folder(folder: Path) -> None:
    """Raises CheckpointError when writing there would replace something that is no checkpoint."""
    if folder.is_dir() and any(folder.iterdir()) and not (folder / ABOUT).is_file():
        raise CheckpointError(f"{folder} holds other files: name a new folder, or a checkpoint's")
    if folder.exists() and not folder.is_dir():
        raise CheckpointError(f"{folder} is a file: name a folder")


def write_checkpoint(folder: Path, about: About, tensors: dict[str, np.ndarray]) -> None:
    """Write both files beside `folder`, then let them take its place. Raises CheckpointError."""
    refuse_folder(folder)
    body = save({name: np.ascontiguousarray(array) for name, array in tensors.items()})
    about.digest = hashlib.blake2b(body, digest_size=16).hexdigest()
    folder = folder.absolute()
    beside = folder.with_name(folder.name + ".new")
    old = folder.with_name(folder.name + ".old")
    try:
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        write_durably(beside / TENSORS, body)
        write_durably(beside / ABOUT, msgspec.json.format(msgspec.json.encode(about)))
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)
            folder.rename(old)
        beside.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
        sync_folder(folder.parent)
    except OSError as fault:
        raise CheckpointError(
            f"cannot write the checkpoint {folder}: {fault.strerror}: name a folder on a disk "
            "with room, where this user may write"
        ) from None


def read_about(folder: Path) -> About:
    """What the checkpoint holds. Raises CheckpointError."""
    try:
        about = msgspec.json.decode((folder / ABOUT).read_bytes(), type=About)
    except OSError as fault:
        raise CheckpointError(f"{folder / ABOUT}: {fault.strerror}: {_CURE}") from None
    except msgspec.MsgspecError as fault:
        raise CheckpointError(f"{folder / ABOUT} is damaged ({fault}): {_CURE}") from None
    if about.format != FORMAT:
        raise CheckpointError(f"{folder} has format {about.format}, this program reads {FORMAT}")
    return about


def read_checkpoint(folder: Path) -> tuple[About, dict[str, np.ndarray]]:
    """A checkpoint whose digest is right. Raises CheckpointError."""
    about = read_about(folder)
    try:
        body = (folder / TENSORS).read_bytes()
    except OSError as fault:
        raise CheckpointError(f"{folder / TENSORS}: {fault.strerror}: {_CURE}") from None
    if hashlib.blake2b(body, digest_size=16).hexdigest() != about.digest:
        raise CheckpointError(f"{folder / TENSORS} is not what was written (digest): {_CURE}")
    try:
        return about, load(body)
    except SafetensorError as fault:
        raise CheckpointError(f"{folder / TENSORS} is damaged ({fault}): {_CURE}") from None


_CURE = "name a folder that `freshrec train --out` wrote, or make it anew"
