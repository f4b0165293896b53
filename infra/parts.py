"""Parts of a checkpoint, which different processes write: a file, and beside it a note about it.

NAME.safetensors   what is kept (infra.tensors)
NAME.json          written last: the digest, or what went wrong
NAME.failed        instead, when there is no room for that: an empty file takes none
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

import msgspec

from infra.tensors import Damaged, read_tree, write_tree
from online.state import State

_FAILED = ".failed"


class Note(msgspec.Struct):
    """What became of a part."""

    digest: str = ""
    size: int = 0  # bytes
    seconds: float = 0.0  # of processor time that it took
    error: str = ""


def write_part(place: Path, state: State) -> None:
    """Write a part and its note, which says what went wrong; a full disk never raises."""
    path, started = place.with_name(place.name + ".safetensors"), time.process_time()
    try:
        digest = write_tree(path, state)
        note = Note(digest, path.stat().st_size, time.process_time() - started)
    except OSError as fault:
        note = Note(error=f"{path}: {fault.strerror}")
        with contextlib.suppress(OSError):
            path.unlink()  # the note needs room
    try:
        _write_note(place, note)
    except OSError:
        with contextlib.suppress(OSError):
            place.with_name(place.name + _FAILED).touch()


def _write_note(place: Path, note: Note) -> None:
    beside = place.with_name(place.name + ".json.new")
    with beside.open("wb") as file:
        file.write(msgspec.json.encode(note))
        file.flush()
        os.fsync(file.fileno())
    beside.rename(place.with_name(place.name + ".json"))


def note_of(place: Path) -> Note | None:
    """The note beside a part; None as long as it is being written."""
    try:
        return msgspec.json.decode(place.with_name(place.name + ".json").read_bytes(), type=Note)
    except FileNotFoundError:
        failed = place.with_name(place.name + _FAILED).exists()
        return Note(error=f"{place}: there is no room, not even for a note") if failed else None
    except OSError as fault:
        return Note(error=f"{place}.json: {fault.strerror}")
    except msgspec.MsgspecError as fault:
        return Note(error=f"{place}.json: {fault}")


def read_part(place: Path, digest: str) -> State:
    """A part whose digest is right. Raises Damaged, which says which file and why."""
    path = place.with_name(place.name + ".safetensors")
    try:
        return read_tree(path, digest)
    except OSError as fault:
        raise Damaged(f"{path}: {fault.strerror}") from None
    except Damaged as fault:
        raise Damaged(f"{path}: {fault}") from None
