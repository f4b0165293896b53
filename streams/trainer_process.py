"""The trainer in a process of its own: it shares no interpreter lock with what serves."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from infra.parts import note_of
from online.sequence import Dense
from online.tables import SLOT_MASK
from online.teaching import EncoderConfig, Lesson, Publication
from streams.child import Child, ChildGone
from streams.core_protocol import Outcome, decode
from streams.trainer_protocol import LESSON, Setup, Taught, array_of

ROWS = 100_000  # items with a vector, at most


class TrainerLost(Exception):
    """The trainer's process is gone, or it raised."""


class TrainerRefused(Exception):
    """The trainer cannot start so: a setting is wrong."""


class TrainerProcess:
    """`online.teaching.Trainer` in a child. Raises TrainerLost, at its start TrainerRefused."""

    def __init__(
        self, config: EncoderConfig, items: int, seed: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        """items: how many the core holds at most."""
        self._config = config
        self._clock = clock
        self._rests_until = -float("inf")
        self._number = 0
        self._child = Child("streams.trainer_child")
        setup = Setup(
            config.width, config.channels, config.hidden, min(items, ROWS), seed, config.device,
            SLOT_MASK,
        )  # fmt: skip
        try:
            self._send("setup", setup)
            self._answer(TrainerRefused)
        except (TrainerLost, TrainerRefused):
            self.close()
            raise

    def idle(self) -> bool:
        """Has it rested long enough? It works for `share` of the time, which may be none."""
        return self._config.share > 0 and self._clock() >= self._rests_until

    def begin(self, lesson: Lesson) -> None:
        self._number = lesson.number
        columns = [c.astype(kind).tobytes() for c, kind in zip(lesson[2:], LESSON, strict=True)]
        self._send("learn", (lesson.number, lesson.steps, *columns))

    def ready(self) -> bool:
        return self._child.answers()

    def finish(self) -> Publication:
        made = decode(self._answer(), type=Taught)
        share = max(self._config.share, 0.001)  # a replay learns what was learned
        rest = made.seconds * (1.0 / share - 1.0)
        self._rests_until = self._clock() + rest
        return self._published(made)

    def start(self, keys: np.ndarray) -> Publication:
        self._number = 1
        self._send("start", (self._config.start, keys.astype(np.int64).tobytes()))
        return self._published(decode(self._answer(TrainerRefused), type=Taught))

    def _published(self, made: Taught) -> Publication:
        dense = Dense(**{name: array_of(packed) for name, packed in made.dense.items()})
        return Publication(
            self._number, dense, array_of(made.item), array_of(made.vector), array_of(made.bias),
            made.loss, made.skipped,
        )  # fmt: skip

    def save(self, place: str) -> bool:
        self._send("save", place)  # no answer comes
        return True

    def resume(self, place: str, number: int, busy: bool) -> None:
        """Raises TrainerRefused when what was saved there is no more what was written."""
        note = note_of(Path(place))
        self._number = number
        self._send("resume", (place, note.digest if note else ""))
        self._answer(TrainerRefused)
        if busy:
            self._send("again", None)  # `finish` reads the answer

    def roll_back(self, number: int) -> None:
        self._send("roll_back", number)
        self._answer()

    def close(self) -> None:
        """End the child. One that ended before is fine."""
        self._child.close()

    def _send(self, method: str, arguments: Any) -> None:
        try:
            self._child.send(method, arguments)
        except ChildGone as gone:
            raise self._lost(method, gone) from None

    def _answer(self, raised: type[Exception] = TrainerLost) -> msgspec.Raw:
        try:
            answer = self._child.receive()
        except ChildGone as gone:
            raise self._lost("its answer", gone) from None
        if answer.outcome is not Outcome.DONE:
            raise raised(f"the encoder's trainer: {decode(answer.value, type=str)}")
        return answer.value

    def _lost(self, at: str, gone: ChildGone) -> TrainerLost:
        return TrainerLost(
            f"the encoder's trainer (process {self._child.pid}) {gone} at {at}: if it was killed, "
            "lower FRESHREC_MEMORY_MB, or set FRESHREC_ENCODER=off"
        )
