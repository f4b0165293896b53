"""What shapes the encoder and how it learns."""

from __future__ import annotations

from dataclasses import dataclass

NOWHERE = -1e30  # bias of an item that has no vector; as in `online.sequence`, as are these
GAPS, KINDS, PRICES = 32, 8, 16  # buckets of time, event types, buckets of price


@dataclass(frozen=True)
class Shape:
    width: int = 48  # D, of an item's vector
    channels: int = 96  # M, of a user's state
    hidden: int = 96  # F, units of the head


@dataclass(frozen=True)
class TrainingConfig:
    rows: int = 100_000  # items that have a vector, at most
    sequences: int = 64  # in a mini-batch
    length: int = 50  # events of a sequence
    negatives: int = 1024  # in a mini-batch; up to twice as many items, and all of them are
    popular: float = 0.5  # share of the negatives that come as often as they are taken
    dense: bool = False  # every row moves at each step: for catalogues that are small enough
    recent: float = 0.5  # share of sequences that end with a recent event; the others end anywhere
    recency: float = 5_000.0  # mean age of these, in events
    replay: int = 1 << 18  # newest events that sequences are made of
    reservoir: int = 8_192  # sequences kept of all that ever were
    rate: float = 2e-3  # Adam's step for the model
    row_rate: float = 2e-3  # and for items' vectors, of the rows that a mini-batch used
    dropout: float = 0.1
    clip: float = 1.0  # norm of the gradient
    sharpness: float = 12.0  # first length of a query
    seed: int = 0
    compiled: bool = False  # torch.compile: worth its minute on a GPU
