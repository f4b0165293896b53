"""Pseudonyms: people's ids as keyed hashes, before anything else sees them."""

from __future__ import annotations

import msgspec

from infra.keys import keyed_hash
from online.events import Event, id_fault

LENGTH = 32  # characters: 128 bits


class Pseudonyms:
    """The same id has the same pseudonym as long as the key is the same.

    >>> Pseudonyms(b"k" * 32).user("ann")
    '94a65524fabccdd5b3d904e652747df1'
    """

    def __init__(self, key: bytes) -> None:
        self._key = key

    def user(self, user_id: str) -> str:
        return keyed_hash(self._key, "user", user_id)[:LENGTH]

    def session(self, session_id: str) -> str:
        return keyed_hash(self._key, "session", session_id)[:LENGTH]

    def event(self, event: Event) -> Event | str:
        """The event with pseudonyms, or why its ids are none; the reason does not show them."""
        for name, value in (("user_id", event.user_id), ("session_id", event.session_id)):
            if value is not None and id_fault(name, value):
                return f"invalid: {name} is no id: 1 to 256 printable characters are allowed"
        session = event.session_id
        return msgspec.structs.replace(
            event,
            user_id=self.user(event.user_id),
            session_id=None if session is None else self.session(session),
        )
