"""Who was forgotten: what every reader of histories must know, so that no past comes back."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path

from infra.checkpoints import CheckpointsError
from infra.keys import keyed_hash, read_key
from infra.log import get_log
from infra.warehouse_types import Warehouse
from online.events import Event
from online.step import Histories, PastEvent

log = get_log("erasures")

ERASURE_KEY = "erasure.key"
REMEMBERED = 100_000  # forgotten users in memory; with more, the warehouse is asked each time
AT_ONCE = 1_000  # bounds the length of one statement
OVERLAP_MS = 60_000  # clocks of workers may differ by this much

_NEW = """SELECT user_hash, max(ts), max(written_ms), any(key_id) FROM erasures
WHERE written_ms >= %(since)s GROUP BY user_hash ORDER BY user_hash LIMIT %(limit)s"""
_OF = "SELECT user_hash, max(ts) FROM erasures WHERE user_hash IN %(hashes)s GROUP BY user_hash"
_REPEATED = """SELECT count() FROM erasures
WHERE user_hash = %(user)s AND forget_hash = %(forget)s"""


class Erasures:
    """The forgotten, by keyed hash, with the newest event time that is forgotten.

    Several threads may ask; one refreshes. Methods that ask the warehouse raise WarehouseError.
    """

    def __init__(self, warehouse: Warehouse, key: bytes, remembered: int = REMEMBERED) -> None:
        self._warehouse = warehouse
        self._key = key
        self._remembered = remembered
        self.key_id = keyed_hash(key, "key", "")[:16]
        self._known: dict[str, int] = {}  # replaced, never changed
        self._too_many = False
        self._since_ms = 0
        self._warned = False

    @property
    def any(self) -> bool:
        return bool(self._known)

    def hash(self, user_id: str) -> str:
        return keyed_hash(self._key, "user", user_id)

    def forget_hash(self, event_id: str) -> str:
        return keyed_hash(self._key, "forget", event_id)

    def add(self, user_hash: str, ts: int) -> None:
        """Known here before `refresh` finds it."""
        self._known = {**self._known, user_hash: max(ts, self._known.get(user_hash, ts))}

    def refresh(self) -> list[str]:
        """Read what is new in the warehouse; the hashes that were not known here."""
        since = self._since_ms - OVERLAP_MS
        given = {"since": since, "limit": self._remembered + 1}
        rows = self._warehouse.query(_NEW, given).rows
        fresh = {hashed: ts for hashed, ts, _, _ in rows if self._known.get(hashed, -1) < ts}
        if rows:
            self._since_ms = max(self._since_ms, *(written for _, _, written, _ in rows))
        if any(key_id != self.key_id for *_, key_id in rows) and not self._warned:
            self._warned = True
            log.warning(
                "erasures_of_another_key",
                why="who was forgotten then is not recognised",
                cure="let workers share FRESHREC_CHECKPOINTS, or put back its erasure.key",
            )
        if fresh:
            self._known = {**self._known, **fresh}
            self._too_many = self._too_many or len(self._known) > self._remembered
            if self._too_many:
                self._known = dict(list(self._known.items())[-self._remembered :])
        return list(fresh)

    def moments(self, users: Iterable[str]) -> dict[str, int]:
        """Of those of `users` who were forgotten, the newest event time that is."""
        if not self._known:
            return {}
        hashes = {self.hash(user): user for user in users}
        found = {h: self._known[h] for h in hashes if h in self._known}
        if self._too_many:
            for some in _chunks([h for h in hashes if h not in found]):
                found |= dict(self._warehouse.query(_OF, {"hashes": some}).rows)
        return {hashes[hashed]: ts for hashed, ts in found.items()}

    def begin(self, histories: Histories) -> Histories:
        """These histories as they may be used: those of the forgotten begin with a `forget`."""
        moments = self.moments(histories)
        if not moments:
            return histories
        return histories | {u: since(histories[u], ts) for u, ts in moments.items()}

    def repeated(self, forget: Event) -> bool:
        """Whether this very `forget` was heeded before."""
        if not self._known:
            return False
        given = {"user": self.hash(forget.user_id), "forget": self.forget_hash(forget.event_id)}
        return bool(self._warehouse.query(_REPEATED, given).rows[0][0])


def since(past: list[PastEvent], ts: int) -> list[PastEvent]:
    """What is left of a history of which everything up to `ts` is forgotten."""
    return [PastEvent("", "forget", "", ts), *(event for event in past if event.ts > ts)]


def _chunks(hashes: list[str]) -> Iterator[tuple[str, ...]]:
    for start in range(0, len(hashes), AT_ONCE):
        yield tuple(hashes[start : start + AT_ONCE])


# -- the key --------------------------------------------------------------------------------------


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
