"""Averages of weights over the steps of learning, which rank better than the last ones."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor


class Average:
    """Exponential moving averages of tensors that change in place (Polyak and Juditsky 1992,
    "Acceleration of stochastic approximation by averaging").

    >>> weight = torch.zeros(1)
    >>> average = Average([weight], decay=0.5)
    >>> for value in (1.0, 2.0, 4.0):
    ...     _ = weight.fill_(value)
    ...     average.update()
    >>> with average.in_place():
    ...     round(weight.item(), 2)
    3.45
    >>> weight.item()
    4.0
    """

    def __init__(self, tensors: list[Tensor], decay: float) -> None:
        """decay: what is kept at each step; the first steps, which are far off, are forgotten."""
        self._tensors, self._decay = tensors, decay
        self._mean = [tensor.detach().clone() for tensor in tensors]
        self._steps = 0

    @torch.no_grad()
    def update(self) -> None:
        self._steps += 1
        part = 1.0 - min(self._decay, self._steps / (self._steps + 9.0))
        for mean, tensor in zip(self._mean, self._tensors, strict=True):
            mean.lerp_(tensor, part)

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
