"""The loss: the item that came next against a sample of the others."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def vectors_of(values: Tensor) -> Tensor:
    """Vectors (R, D) as they enter the model and serve, of rows of the table (R, D + 1).

    The table holds them √D times shorter, so that a step of Adam moves them farther.
    """
    return values[:, :-1] * math.sqrt(values.shape[1] - 1)


def logits(queries: Tensor, values: Tensor) -> Tensor:
    """Scores (N, R) of items `values` (R, D + 1), vectors and biases, for queries (N, D)."""
    return queries @ vectors_of(values).T + values[:, -1]


def softmax_loss(queries: Tensor, values: Tensor, target: Tensor) -> Tensor:
    """Cross entropy over all items; target: (N,) places in `values`."""
    return F.cross_entropy(logits(queries, values), target)


def sampled_softmax_loss(
    queries: Tensor, values: Tensor, target: Tensor, negative: Tensor, log_chance: Tensor
) -> Tensor:
    """Cross entropy of each target against sampled items, corrected for how they were sampled.

    target: (N,) and negative: (R,) places in `values`; log_chance: (R,) log of the expected number
    of times that an item is among the negatives. After Bengio and Senécal (2008), "Adaptive
    importance sampling", and Yi et al. (2019), "Sampling-bias-corrected neural modeling" (logQ).
    """
    vectors, bias = vectors_of(values), values[:, -1]
    theirs = queries @ vectors[negative].T + bias[negative] - log_chance
    theirs = theirs.masked_fill(negative[None, :] == target[:, None], -1e9)
    ours = (queries * vectors[target]).sum(-1) + bias[target]
    return F.cross_entropy(torch.cat([ours[:, None], theirs], 1), torch.zeros_like(target))
