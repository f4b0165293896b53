"""How long a call takes, again and again, in one thread."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from encoders.devices import Device

WARM_UP, LEAST = 3, 5  # calls that do not count, and how many do at least


@dataclass(frozen=True)
class Timing:
    """What each call took.

    >>> timing = Timing(np.array([2.0, 1.0, 3.0]))
    >>> timing.p50, timing.per_second, round(timing.gflops(4e6), 6)
    (2.0, 500.0, 2.0)
    """

    ms: np.ndarray  # (N,)

    @property
    def p50(self) -> float:
        return float(np.median(self.ms))

    @property
    def per_second(self) -> float:
        return 1000.0 / float(self.ms.mean())

    def gflops(self, flops: float) -> float:
        """GFLOP/s of the median call when each has so many operations."""
        return flops / self.p50 / 1e6

    def report(self, flops: float = 0.0, peak: float = 0.0) -> dict[str, Any]:
        """Milliseconds of a call; with its operations, how they compare to a peak in GFLOP/s."""
        found: dict[str, Any] = {
            "calls": len(self.ms),
            "p50_ms": round(self.p50, 4),
            "p99_ms": round(float(np.percentile(self.ms, 99)), 4),
        }
        if flops:
            found["gflops"] = round(self.gflops(flops), 3)
            found["of_peak"] = round(self.gflops(flops) / peak, 5)
        return found


def timed(call: Callable[[], object], seconds: float, device: Device | None = None) -> Timing:
    """Call for so long, at least LEAST times, after a warm-up.

    device: every call lasts until it is done with what was asked of it.
    """
    wait = device.synchronize if device is not None else _nothing
    for _ in range(WARM_UP):
        call()
    wait()
    ms: list[float] = []
    until = time.perf_counter() + seconds
    while len(ms) < LEAST or time.perf_counter() < until:
        began = time.perf_counter()
        call()
        wait()
        ms.append(1000.0 * (time.perf_counter() - began))
    return Timing(np.array(ms))


def _nothing() -> None:
    """The processor is done when the call returns."""


@contextmanager
def one_thread() -> Iterator[None]:
    """PyTorch and NumPy compute in one thread each, as in the workers."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(before)
