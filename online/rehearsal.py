"""A trainer for compiling everything before there is anything to learn."""

from __future__ import annotations

import numpy as np

from online.sequence import new_dense
from online.teaching import EncoderConfig, Lesson, Publication

Array = np.ndarray


class Rehearsal:
    """A trainer that learns nothing, for compiling and tests: every item has the same vector."""

    def __init__(self, config: EncoderConfig) -> None:
        self._config = config
        self._lesson: Lesson | None = None

    def idle(self) -> bool:
        return True

    def begin(self, lesson: Lesson) -> None:
        self._lesson = lesson

    def ready(self) -> bool:
        return True

    def finish(self) -> Publication:
        assert self._lesson is not None
        return self._made(self._lesson.number, self._lesson.item)

    def start(self, keys: Array) -> Publication:
        return self._made(1, keys[keys >= 0])

    def roll_back(self, number: int) -> None:
        pass

    def close(self) -> None:
        pass

    def _made(self, number: int, keys: Array) -> Publication:
        c, items = self._config, np.unique(keys).astype(np.int32)
        dense = new_dense(c.width, c.channels, c.hidden)
        for weights in dense:
            weights[:] = 0.5
        vectors = np.ones((len(items), c.width), np.float32)
        bias = np.zeros(len(items), np.float32)
        return Publication(number, dense, items, vectors, bias, float("nan"), 0)
