"""Averages of weights over the steps of learning, which rank better than the last ones."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor


class Average:
    """Exponential moving averages of tensors that change in place (Polyak and Juditsky 1992,
    "Acceleration of stochastic approximation by averaging")."""

    def __init__(self, tensors: list[Tensor], decay: float) -> None:
        """decay: what is kept at each step; the first steps, which are far off, are forgotten."""
        self._tensors, self._decay = tensors, decay
        self._mean = [tensor.detach().clone() for tensor in tensors]
        self._steps = 0

    @torch.no_grad()
    def update(self) -> None:
        self._steps += 1
        part = 1.0 - min(self._decay, self._steps / (self._steps + 9.0))
        torch._foreach_lerp_(self._mean, self._tensors, part)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """The tensors are their averages for a while."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for mean, tensor in zip(self._mean, self._tensors, strict=True):
            now = tensor.detach().clone()
            tensor.copy_(mean)
            mean.copy_(now)
