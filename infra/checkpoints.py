"""A worker's checkpoints: states of its core, and a mark of what is in the warehouse.

    FOLDER/shard-0/lock              owned by one worker
    FOLDER/shard-0/lineage           a name, which the journal knows as the shard's
    FOLDER/shard-0/state-NUMBER/     about.json, and a file with a note for each part (infra.parts)
    FOLDER/shard-0/damaged-NUMBER/   a state that was passed over: nothing reads it again
    FOLDER/shard-0/mark.json         every row of the batches up to this one is in the warehouse

A state becomes visible by a rename, when all of it is on the disk and what it has learned is in the
journal; the newest three are kept. State and journal together are what a worker goes on from: the
state as it was after some batch, then the journalled batches after it. So a state may be some time
old, and a damaged one costs time, not knowledge.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import msgspec

from infra.durable import sync_folder, write_durably
from infra.locks import owned
from infra.parts import note_of
from infra.tensors import Damaged

FORMAT = 1
KEPT = 3
SHARDS = 1024  # at most: a batch's number ends in that of the shard that learned it
_ABOUT, _MARK, _STATE, _NEW, _OLD = "about.json", "mark.json", "state-", "new-", "old-"
_LINEAGE = "lineage"


class CheckpointsError(Exception):
    """Checkpoints cannot be used; the message names the path, what was seen, and the cure."""


class About(msgspec.Struct):
    """What a state is."""

    format: int
    version: str  # of freshrec
    shard: int
    batch: int  # the newest that it has learned
    broker_id: str  # whose offsets these are
    offsets: dict[str, int]  # by topic/partition, the next one
    events: int  # that were learned in all
    parts: dict[str, str]  # name to digest
    settings: dict[str, Any]  # that it was made with
    heard: dict[int, int] = {}  # by shard, the newest batch that it heard of
    updates: dict[int, int] = {}  # by partition of the topic model-updates, the next offset


class Mark(msgspec.Struct):
    """How far the warehouse is: every row of every batch up to this one is there."""

    batch: int
    broker_id: str = ""
    offsets: dict[str, int] = {}
    digest: str = ""

    def sealed(self) -> Mark:
        return msgspec.structs.replace(self, digest=self._digest())

    def whole(self) -> bool:
        return self.digest == self._digest()

    def _digest(self) -> str:
        body = msgspec.json.encode(msgspec.structs.replace(self, digest=""))
        return hashlib.blake2b(body, digest_size=16).hexdigest()


class Checkpoints:
    """Those of one shard, which is ours until `close` or the end of the process.

    Raises CheckpointsError when the folder cannot be used.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        with self._faults(root):
            root.mkdir(parents=True, exist_ok=True)
            self.shard, self.folder, self._lock = _claimed(root)
            for left in [*self.folder.glob(_NEW + "*"), *self.folder.glob(_OLD + "*")]:
                shutil.rmtree(left)
            self.lineage = _lineage(self.folder / _LINEAGE)

    # -- states ------------------------------------------------------------------------------

    def states(self) -> list[Path]:
        """Folders of the states, newest first."""
        found = [p for p in self.folder.glob(_STATE + "*") if p.name[len(_STATE) :].isdigit()]
        return sorted(found, reverse=True)

    def begin(self) -> Path:
        """A new, empty folder for a state."""
        newest = self.states()[:1]
        number = 1 + (int(newest[0].name[len(_STATE) :]) if newest else 0)
        folder = self.folder / f"{_NEW}{number:012d}"
        with self._faults(folder):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
        return folder

    def commit(self, folder: Path, about: About) -> None:
        """Make a state visible whose parts are written; drop all but the newest KEPT."""
        with self._faults(folder):
            write_durably(folder / _ABOUT, msgspec.json.format(msgspec.json.encode(about)))
            sync_folder(folder)
            folder.rename(self.folder / folder.name.replace(_NEW, _STATE))
            sync_folder(self.folder)
            for old in self.states()[KEPT:]:
                _drop(old)

    def drop_older(self) -> list[str]:
        """Drop all states but the newest: they hold who was forgotten since. Which these were."""
        with self._faults(self.folder):
            older = [*self.states()[1:], *self.folder.glob("damaged-*")]
            for folder in older:
                _drop(folder)
            sync_folder(self.folder)
        return [folder.name for folder in older]

    @staticmethod
    def abandon(folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)

    def put_by(self, folder: Path) -> None:
        """Rename a state that cannot be used: it must not count among those that are kept."""
        aside = folder.with_name(f"damaged-{folder.name.removeprefix(_STATE)}")
        with contextlib.suppress(OSError):
            shutil.rmtree(aside, ignore_errors=True)  # numbers are used again
            folder.rename(aside)

    # -- the mark ----------------------------------------------------------------------------

    def mark(self, mark: Mark) -> None:
        path = self.folder / _MARK
        with self._faults(path):
            beside = path.with_name(_MARK + ".new")
            write_durably(beside, msgspec.json.encode(mark.sealed()))
            beside.rename(path)
            sync_folder(self.folder)

    def marked(self) -> Mark | None:
        """The newest mark. None without one, and when it is damaged."""
        with contextlib.suppress(OSError, msgspec.MsgspecError):
            found = msgspec.json.decode((self.folder / _MARK).read_bytes(), type=Mark)
            return found if found.whole() else None
        return None

    # -- the folder --------------------------------------------------------------------------

    @property
    def used(self) -> bool:
        """Was there ever a state or a mark?"""
        return bool(self.states()) or (self.folder / _MARK).exists()

    def set_aside(self) -> Path | None:
        """Begin anew: move what is there to a folder beside it, which is returned."""
        if not self.used:
            return None
        with self._faults(self.folder):
            n = 1 + sum(1 for _ in self.folder.glob("aside-*"))
            aside = self.folder / f"aside-{n}"
            aside.mkdir()
            for path in [*self.states(), self.folder / _MARK]:
                if path.exists():
                    path.rename(aside / path.name)
        return aside

    def close(self) -> None:
        self._lock.close()

    @contextlib.contextmanager
    def _faults(self, path: Path) -> Iterator[None]:
        try:
            yield
        except OSError as fault:
            raise CheckpointsError(
                f"the checkpoint {path} cannot be written ({fault.strerror}): make room or give "
                "this user the right to write there, or name another folder in FRESHREC_CHECKPOINTS"
            ) from None


def about_state(folder: Path) -> About:
    """What a state is. Raises Damaged, which says why it cannot be used."""
    path = folder / _ABOUT
    try:
        about = msgspec.json.decode(path.read_bytes(), type=About)
    except OSError as fault:
        raise Damaged(f"{path}: {fault.strerror}") from None
    except msgspec.MsgspecError as fault:
        raise Damaged(f"{path}: {fault}") from None
    if about.format != FORMAT:
        raise Damaged(f"{path}: format {about.format}, this program reads {FORMAT}")
    for name, digest in about.parts.items():
        note = note_of(folder / name)
        if note is None or note.error or note.digest != digest:
            why = note.error if note is not None else ""
            why = why or "its note is missing, or not the one of this state"
            raise Damaged(f"{folder / name}: {why}")
        size = _size(folder / f"{name}.safetensors")
        if size != note.size:
            raise Damaged(f"{folder / name}.safetensors has {size} bytes instead of {note.size}")
    return about


def _drop(folder: Path) -> None:
    """Remove it; a kill in between must not leave what looks like a state."""
    old = folder.with_name(_OLD + folder.name)
    if old.exists():  # it could not be removed the last time that this number was used
        shutil.rmtree(old)
    folder.rename(old)
    shutil.rmtree(old)


def _lineage(path: Path) -> str:
    """The name in that file, made when it is missing."""
    if not path.exists():
        write_durably(path, uuid.uuid4().hex.encode())
    return path.read_text(encoding="ascii").strip()


def _claimed(root: Path) -> tuple[int, Path, IO[str]]:
    """The lowest shard that no other worker has; its folder and our lock."""
    for shard in range(SHARDS):
        folder = root / f"shard-{shard}"
        folder.mkdir(exist_ok=True)
        lock = owned(folder / "lock")
        if lock is not None:
            return shard, folder, lock
    raise CheckpointsError(f"{root}: all {SHARDS} shards are in use: that many workers at most")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1
