"""A trainer in this process, for a core in this process; and trainers that go wrong."""

from __future__ import annotations

import numpy as np

from encoders.config import Shape, TrainingConfig
from encoders.devices import Device
from encoders.trainer import Trainer
from online.sequence import NOWHERE, Dense
from online.teaching import EncoderConfig, Lesson, Publication

SMALL_ENCODER = EncoderConfig(width=16, channels=24, hidden=16, every=100, steps=0.05)


class Direct:
    """`online.teaching.Trainer`: a lesson is done when its end is asked for."""

    def __init__(self, config: EncoderConfig = SMALL_ENCODER) -> None:
        shape = Shape(config.width, config.channels, config.hidden)
        training = TrainingConfig(rows=1_000, sequences=16, length=10, negatives=64, row_rate=1e-2)
        self.trainer = Trainer(shape, training, Device.named("cpu"))
        self.lessons: list[Lesson] = []
        self.rolled_back: list[int] = []
        self.done = True  # what `ready` answers
        self.finished = 0

    def idle(self) -> bool:
        return True

    def begin(self, lesson: Lesson) -> None:
        self.lessons.append(lesson)

    def ready(self) -> bool:
        return self.done

    def finish(self) -> Publication:
        self.finished += 1
        made = self.trainer.learn(*self.lessons[-1])
        return Publication(
            self.lessons[-1].number, Dense(**made.dense), made.item, made.vector, made.bias,
            made.loss, made.skipped,
        )  # fmt: skip

    def start(self, keys: np.ndarray) -> Publication:
        raise NotImplementedError

    def close(self) -> None:
        pass

    def roll_back(self, number: int) -> None:
        self.rolled_back.append(number)
        self.trainer.roll_back(number)


class Spoiled(Direct):
    """From one lesson on its weights say the opposite of what was learned."""

    bad_from = 1 << 30

    def finish(self) -> Publication:
        made = super().finish()
        if made.number < self.bad_from:
            return made
        return made._replace(dense=made.dense._replace(sharpness=-made.dense.sharpness))


class NotFinite(Direct):
    """One lesson's weights are no numbers, and an item lost its row in it."""

    bad = 5
    lost = -1  # the item's key

    def finish(self) -> Publication:
        made = super().finish()
        if made.number != self.bad:
            return made
        self.lost = int(made.item[0])
        bias = np.where(made.item == self.lost, np.float32(NOWHERE), made.bias)
        dense = made.dense._replace(drive=made.dense.drive * np.nan)
        return made._replace(dense=dense, bias=bias)
