"""The sequence encoder: one linear recurrence whose decay depends on the time between events.

    state_t = decay[gap_t] ⊙ state_{t-1} + √(1 - decay²) ⊙ (x_t · drive)
    y_t = x_t + state_t · out;   y_t += feed-forward(norm(y_t))
    query_t = sharpness · direction(norm(y_t) ⊙ (1 + stretch[now_t]) + shift[now_t])

x is the sum of an item's vector and of vectors for the event's type, its gap from the event before
and its price; `now` is the gap until the moment that is asked about. An item's score is the query's
product with the item's vector, plus a bias. After Orvieto et al. (2023), "Resurrecting recurrent
neural networks for long sequences", and Yue et al. (2024), "Linear recurrent units for sequential
recommendation"; real decays, which measured better here than complex ones (docs/encoder.md).

Without a nonlinearity between steps a state is a weighted sum of the past, so it can be had from
the whole sequence at once (training) or by one small step for each event (`online.sequence`).
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from encoders.config import GAPS, KINDS, PRICES, Shape

SHORTEST, LONGEST = 1.0, 100.0  # time constants of the channels at first, in events


class Norm(nn.Module):
    """Root mean square normalisation (Zhang and Sennrich 2019)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        scale = torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + 1e-6)
        return x * scale.to(x.dtype) * self.weight


def scan(decay: Tensor, drive: Tensor, longest: int) -> Tensor:
    """state_t = decay_t ⊙ state_{t-1} + drive_t along axis 1, from zero. Shapes: (B, T, M).

    By doubling (Hillis and Steele 1986): log2 `longest` passes over the whole instead of T small
    steps. That is enough when a decay is zero at least every `longest` steps.
    """
    step = 1
    while step < longest:
        later = drive[:, step:] + decay[:, step:] * drive[:, :-step]
        drive = torch.cat([drive[:, :step], later], 1)
        if 2 * step < longest:
            longer = decay[:, step:] * decay[:, :-step]
            decay = torch.cat([decay[:, :step], longer], 1)
        step *= 2
    return drive


class SequenceModel(nn.Module):
    """Everything but the items' vectors, which are a table of their own (`encoders.table`)."""

    def __init__(self, shape: Shape = Shape(), dropout: float = 0.1, sharpness: float = 12.0):
        super().__init__()
        d, m, f = shape.width, shape.channels, shape.hidden
        self.shape = shape
        self.kind = nn.Parameter(torch.zeros(KINDS, d))
        self.gap = nn.Parameter(torch.zeros(GAPS, d))
        self.price = nn.Parameter(torch.zeros(PRICES, d))
        constants = torch.exp(torch.linspace(math.log(SHORTEST), math.log(LONGEST), m))
        self.keep = nn.Parameter(torch.logit(torch.exp(-1.0 / constants)))
        self.keep_gap = nn.Parameter(torch.zeros(GAPS, m))
        self.drive = nn.Linear(d, m, bias=False)
        self.out = nn.Linear(m, d)
        self.norm, self.last_norm = Norm(d), Norm(d)
        self.up, self.down = nn.Linear(d, f), nn.Linear(f, d)
        self.stretch = nn.Parameter(torch.zeros(GAPS, d))
        self.shift = nn.Parameter(torch.zeros(GAPS, d))
        self.sharpness = nn.Parameter(torch.tensor([sharpness]))
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, vectors: Tensor, kind: Tensor, gap: Tensor, price: Tensor, now: Tensor,
        first: Tensor, longest: int,
    ) -> Tensor:  # fmt: skip
        """Queries (B, T, D) after each event of sequences that lie one after another in B rows.

        vectors: (B, T, D) of the items; kind, gap, price, now: (B, T) integers, buckets; first:
        (B, T), true where a sequence begins; longest: events that one has, at most.
        """
        x = self.dropout(vectors + self.kind[kind] + self.gap[gap] + self.price[price])
        decay = self.decay()[gap] * ~first[..., None]
        state = scan(decay, self.drive(x) * self.scale(), longest)
        return self.head(x, state, now)

    def step(
        self, state: Tensor, vectors: Tensor, kind: Tensor, gap: Tensor, price: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Advance B states (B, M) by one event each; the new states and x (B, D) for `head`."""
        x = vectors + self.kind[kind] + self.gap[gap] + self.price[price]
        return self.decay()[gap] * state + self.drive(x) * self.scale(), x

    def head(self, x: Tensor, state: Tensor, now: Tensor) -> Tensor:
        """Queries (…, D) of states (…, M) whose newest event is x (…, D), asked after `now` (…)."""
        y = x + self.dropout(self.out(state))
        y = y + self.dropout(self.down(F.gelu(self.up(self.norm(y)), approximate="tanh")))
        h = self.last_norm(y) * (1.0 + self.stretch[now]) + self.shift[now]
        return F.normalize(h.float(), dim=-1) * self.sharpness

    def decay(self) -> Tensor:
        """(GAPS, M): what is kept of a channel's state by an event after each gap."""
        return torch.sigmoid(self.keep + self.keep_gap)

    def scale(self) -> Tensor:
        """(M,): so that slow channels do not outweigh fast ones."""
        return torch.sqrt(1.0 - torch.sigmoid(self.keep) ** 2)

    @torch.no_grad()
    def dense(self) -> dict[str, np.ndarray]:
        """The weights as `online.sequence.Dense` takes them, by name."""
        found = {
            "decay": self.decay(),
            "drive": (self.drive.weight * self.scale()[:, None]).T,
            "kind": self.kind,
            "gap": self.gap,
            "price": self.price,
            "out": self.out.weight.T,
            "out_bias": self.out.bias,
            "norm": self.norm.weight,
            "up": self.up.weight.T,
            "up_bias": self.up.bias,
            "down": self.down.weight.T,
            "down_bias": self.down.bias,
            "last_norm": self.last_norm.weight,
            "stretch": 1.0 + self.stretch,
            "shift": self.shift,
            "sharpness": self.sharpness,
        }
        # copies: what serves must not move while the model learns on
        return {
            name: np.array(tensor.float().cpu().numpy(), np.float32, order="C")
            for name, tensor in found.items()
        }
