"""Events for the encoder's tests: users who walk through items in circles."""

from __future__ import annotations

import numpy as np

from encoders.config import Shape, TrainingConfig
from encoders.devices import Device
from encoders.trainer import Trainer

SHAPE = Shape(width=16, channels=24, hidden=16)
CPU = Device.named("cpu")


def walk(events: int, users: int = 20, items: int = 60, seed: int = 0) -> tuple[np.ndarray, ...]:
    """(user, item, kind, price, ts): most often the next item is the one after the last."""
    rng = np.random.default_rng(seed)
    user = rng.integers(0, users, events)
    at = rng.integers(0, items, users)
    item = np.empty(events, np.int64)
    for n, u in enumerate(user.tolist()):
        at[u] = (at[u] + 1) % items if rng.random() < 0.9 else rng.integers(0, items)
        item[n] = at[u]
    zeros = np.zeros(events, np.int8)
    return user, item, zeros + 1, zeros, np.arange(events) * 1_000


def small_trainer(seed: int = 0, **changed: object) -> Trainer:
    training = TrainingConfig(
        rows=1_000, sequences=16, length=10, negatives=64, replay=4_096, reservoir=64, seed=seed,
        **changed,  # type: ignore[arg-type]
    )  # fmt: skip
    return Trainer(SHAPE, training, CPU)
