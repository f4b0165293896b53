"""How fast the encoder learns: lessons of `encoders.trainer` on generated traffic."""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from typing import Any, NamedTuple

import numpy as np

from encoders.config import PRICES
from encoders.devices import Device
from encoders.trainer import Trainer
from online.teaching import EncoderConfig
from streams.bench.encoder_work import EncoderPlan, compared_items, step_flops
from streams.bench.timing import timed

USERS, EVENTS = 200, 20_000  # so few users that most sequences are long
DRAWS = 32  # mini-batches whose targets are counted


class Columns(NamedTuple):
    """Events (E,) as Trainer.learn takes them."""

    user: np.ndarray
    item: np.ndarray
    kind: np.ndarray
    price: np.ndarray
    ts: np.ndarray


def traffic(items: int, seed: int) -> Columns:
    """Every item once, and EVENTS more by a Zipf law, mixed; one event a second.

    >>> len(set(traffic(100, 0).item.tolist()))
    100
    """
    rng = np.random.default_rng(seed)
    chance = 1.0 / np.arange(1, items + 1)
    popular = rng.choice(items, EVENTS, p=chance / chance.sum())
    item = rng.permutation(np.concatenate([np.arange(items), popular])).astype(np.int32)
    n = len(item)
    return Columns(
        rng.integers(0, USERS, n).astype(np.int32),
        item,
        rng.integers(0, 4, n).astype(np.int8),
        rng.integers(0, PRICES, n).astype(np.int8),
        np.arange(n, dtype=np.int64) * 1000,
    )


def measure(plan: EncoderPlan, device: Device, items: int, peak: float) -> dict[str, Any]:
    """Lessons of one step, each with as many new events as one step is taken for.

    peak: GFLOP/s of the device at the precision that training uses.
    """
    config = replace(plan.training, compiled=plan.compiled)
    trainer = Trainer(plan.shape, config, device)
    events, numbers = traffic(items, plan.seed), count(1)
    trainer.learn(next(numbers), 0, *events)
    some = Columns(*(column[: round(1 / EncoderConfig().steps)] for column in events))
    timing = timed(lambda: trainer.learn(next(numbers), 1, *some), plan.seconds, device)
    held = trainer.table.count[trainer.table.key >= 0]
    flops = step_flops(plan.shape, _targets(trainer), compared_items(held, config.negatives))
    return {
        "items": items,
        "sequences": config.sequences,
        "events": config.length,
        "train_sequences_per_second": round(config.sequences * timing.per_second, 1),
        "steps_per_second": round(timing.per_second, 2),
        **timing.report(flops, peak),
    }


def _targets(trainer: Trainer) -> float:
    """Targets of a mini-batch, on average."""
    config = trainer.config
    total = 0
    for _ in range(DRAWS):
        valid = trainer.replay.draw(config.sequences, config.recent, config.recency).valid
        total += int((valid[:, 1:] & valid[:, :-1]).sum())
    return total / DRAWS
