"""What `freshrec bench encoder` lets the encoder compute, and how much that is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from encoders.config import KINDS, PRICES, Shape, TrainingConfig
from encoders.devices import Device
from encoders.model import SequenceModel
from encoders.replay import gap_buckets


@dataclass(frozen=True)
class EncoderPlan:
    """What is measured, and for how long."""

    device: str = "auto"
    seconds: float = 3.0  # for each figure
    compiled: bool = False  # torch.compile for what the device computes
    shape: Shape = Shape()
    training: TrainingConfig = TrainingConfig()
    sides: tuple[int, ...] = ()  # of the matrices of the peak; none: as suits the device
    batches: tuple[int, ...] = (1, 16, 64, 256)  # users whose sequences are encoded at once
    length: int = 50  # events of these sequences
    users: int = 256  # who are advanced by one event, and rebuilt
    histories: tuple[int, ...] = (10, 50, 100, 1_000)  # events that these have already
    catalogues: tuple[int, ...] = (2_000, 20_000)  # items while training
    indexed: tuple[int, ...] = (20_000, 60_000)  # items among which the nearest are looked for
    seed: int = 0


# -- how much it is ------------------------------------------------------------------------------


def event_flops(shape: Shape) -> int:
    """Operations for one event and its query: two for each multiply-add.

    Counted are the four matrix products (drive D·M, out M·D, up D·F, down F·D) and the recurrence
    (M); not what goes by single elements (norms, GELU, sums of vectors) and not what `scan`
    computes twice to do all events at once: that is the cost of a way, not of the work.

    >>> event_flops(Shape(width=48, channels=96, hidden=96))
    37056
    """
    d, m, f = shape.width, shape.channels, shape.hidden
    return 2 * (d * m + m * d + d * f + f * d + m)


def step_flops(shape: Shape, targets: float, others: float) -> float:
    """Operations of a training step: forward, and twice that backward.

    targets: of the mini-batch; others: items that each of them is compared with.

    >>> step_flops(Shape(), targets=1, others=10) / 3
    38016.0
    """
    return 3.0 * targets * (event_flops(shape) + 2 * others * shape.width)


def compared_items(count: np.ndarray, negatives: int) -> float:
    """How many items a target is expected to be compared with, as `encoders.trainer` chooses them.

    count: events of each item (I,).

    >>> compared_items(np.ones(100), 50), round(compared_items(np.ones(100_000), 1024))
    (100.0, 1019)
    """
    n = len(count)
    if n <= 2 * negatives:
        return float(n)
    missed = (1.0 - count / count.sum()) ** (negatives // 2) * (1.0 - 1.0 / n) ** (negatives // 2)
    return float((1.0 - missed).sum())


# -- what it is done on --------------------------------------------------------------------------


def random_model(shape: Shape, seed: int) -> SequenceModel:
    """A model on the processor all of whose weights matter: none is 0 or 1, as some are at first.

    What it computes does not depend on what it has learned, nor does the time that this takes.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model = SequenceModel(shape)
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight), alpha=0.2)
    return model.eval()


class Events(NamedTuple):
    """Events of B users, T each, oldest first: arrays (B, T)."""

    item: np.ndarray  # i4 slots
    kind: np.ndarray  # i1
    price: np.ndarray  # i1 buckets
    ts: np.ndarray  # i8 ms
    gap: np.ndarray  # i8 buckets of the gaps from the event before, 0 for the first
    now: np.ndarray  # i8 buckets of the gaps until somebody asks

    def torch_inputs(self, vectors: np.ndarray, device: Device) -> dict[str, Any]:
        """What SequenceModel.forward takes, on the device. vectors: (I, D)."""
        first = np.zeros(self.item.shape, np.bool_)
        first[:, 0] = True
        inputs = {"vectors": vectors[self.item], "first": first}
        for name in ("kind", "gap", "price", "now"):
            inputs[name] = getattr(self, name).astype(np.int64)
        tensors = {name: device.take(array) for name, array in inputs.items()}
        return {**tensors, "longest": self.item.shape[1]}


def random_events(rng: np.random.Generator, users: int, length: int, items: int) -> Events:
    """Items, types and prices by chance; pauses from milliseconds to weeks."""
    shape = (users, length)

    def pauses() -> np.ndarray:
        return np.exp(rng.normal(10.0, 4.0, shape)).astype(np.int64)

    ts = np.cumsum(pauses(), 1)
    gap = gap_buckets(np.diff(ts, axis=1, prepend=ts[:, :1]))
    gap[:, 0] = 0
    return Events(
        rng.integers(0, items, shape).astype(np.int32),
        rng.integers(0, KINDS, shape).astype(np.int8),
        rng.integers(0, PRICES, shape).astype(np.int8),
        ts,
        gap,
        gap_buckets(pauses()),
    )


def random_vectors(rng: np.random.Generator, items: int, width: int) -> np.ndarray:
    """(I, D) f4, about as long as learned ones."""
    return rng.normal(0.0, 0.5, (items, width)).astype(np.float32)
