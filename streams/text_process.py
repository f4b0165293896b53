"""The language model in a process of its own: it shares neither lock nor memory with what serves.

Queries go first: a catalogue is read in portions, between which they are answered; in small ones as
long as somebody asks.
"""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager

import msgspec
import numpy as np

from encoders.text_config import TextConfig
from streams.child import Child, ChildGone
from streams.core_protocol import Outcome, decode

PORTION, SMALL_PORTION = 1_200, 240  # letters that are read at once: some 50 ms, or 10
LETTERS = 256  # of one text that cost something: the rest is cut off
ASKED_S = 5.0  # since the last query, after which nobody asks


class TextLost(Exception):
    """The language model's process is gone, or it raised."""


class TextRefused(Exception):
    """The language model cannot be used: a setting is wrong."""


class Turns:
    """A lock that those who are in a hurry get first, and among them who came first."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._taken = False
        self._came = itertools.count()
        self._waiting: list[tuple[bool, int]] = []  # a heap

    def take(self, hurry: bool) -> None:
        with self._changed:
            turn = not hurry, next(self._came)
            heapq.heappush(self._waiting, turn)
            self._changed.wait_for(lambda: not self._taken and self._waiting[0] == turn)
            heapq.heappop(self._waiting)
            self._taken = True

    def give(self) -> None:
        with self._changed:
            self._taken = False
            self._changed.notify_all()


class TextProcess(AbstractContextManager["TextProcess"]):
    """`encoders.text.TextEncoder` in a child; may be asked from several threads."""

    def __init__(self, config: TextConfig) -> None:
        """Raises TextRefused, TextLost."""
        self._turns = Turns()
        self._asked = -ASKED_S
        self._child = Child("streams.text_child")
        try:
            self.name, self.width = decode(
                self._ask("setup", config, TextRefused), type=tuple[str, int]
            )
        except (TextLost, TextRefused):
            self.close()
            raise

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def exit_code(self) -> int | None:
        return self._child.exit_code

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """(N, D) f4; a catalogue's. Raises TextLost."""
        order = sorted(range(len(texts)), key=lambda n: -len(texts[n]))  # less padding
        found = np.zeros((len(texts), self.width), np.float32)
        while order:
            asked = time.monotonic() - self._asked < ASKED_S
            longest = min(len(texts[order[0]]), LETTERS) + 1  # of those that are left
            most = max((SMALL_PORTION if asked else PORTION) // longest, 1)
            rows, order = order[:most], order[most:]
            found[rows] = self._encode([texts[n] for n in rows], hurry=False)
        return found

    def encode_now(self, texts: Sequence[str]) -> np.ndarray:
        """(N, D) f4; of queries, for which somebody waits. Raises TextLost."""
        self._asked = time.monotonic()
        return self._encode(list(texts), hurry=True)

    def close(self) -> None:
        self._child.close()

    def _encode(self, texts: list[str], hurry: bool) -> np.ndarray:
        self._turns.take(hurry)
        try:
            raw = decode(self._ask("encode_now" if hurry else "encode", texts), type=bytes)
        finally:
            self._turns.give()
        return np.frombuffer(raw, np.float32).reshape(len(texts), self.width)

    def _ask(
        self, method: str, arguments: object, raised: type[Exception] = TextLost
    ) -> msgspec.Raw:
        try:
            self._child.send(method, arguments)
            answer = self._child.receive()
        except ChildGone as gone:
            raise TextLost(
                f"the language model's process {self.pid} {gone} at {method!r}: if it was killed, "
                "give the machine more memory, or set FRESHREC_TEXT=off"
            ) from None
        if answer.outcome is not Outcome.DONE:
            raise raised(decode(answer.value, type=str))
        return answer.value
