"""Where PyTorch computes: a GPU if there is one, else the processor."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

NAMES = ("auto", "cpu", "cuda", "mps")


class DeviceError(ValueError):
    """The device that was asked for is not there."""


@dataclass(frozen=True)
class Device:
    """A device and how to bring arrays to it."""

    torch: torch.device  # PyTorch's own

    @classmethod
    def named(cls, name: str = "auto") -> Device:
        """One of NAMES. Raises DeviceError.

        >>> Device.named("cpu").torch.type
        'cpu'
        """
        if name not in NAMES:
            raise DeviceError(f"FRESHREC_DEVICE={name!r}: use one of {', '.join(NAMES)}")
        there = {"cpu": True, "cuda": torch.cuda.is_available(),
                 "mps": torch.backends.mps.is_available()}  # fmt: skip
        if name == "auto":
            name = next(each for each in ("cuda", "mps", "cpu") if there[each])
        if not there[name]:
            raise DeviceError(
                f"FRESHREC_DEVICE={name}: PyTorch {torch.__version__} finds no such device here; "
                "use auto or cpu, or install a build of PyTorch for it"
            )
        return cls(torch.device(name))

    def take(self, array: np.ndarray) -> Tensor:
        """The array on the device; the copy to a GPU does not wait for what runs there."""
        tensor = torch.from_numpy(array)
        if self.torch.type == "cuda":
            return tensor.pin_memory().to(self.torch, non_blocking=True)
        return tensor.to(self.torch)

    @contextlib.contextmanager
    def autocast(self) -> Iterator[None]:
        """Matrix products in bfloat16 on CUDA; as they are elsewhere."""
        if self.torch.type == "cuda":
            with torch.autocast("cuda", torch.bfloat16):
                yield
        else:
            yield

    def compiled(self, model: nn.Module) -> Any:
        """The model through torch.compile."""
        return torch.compile(model, dynamic=True)

    def synchronize(self) -> None:
        """Wait until everything that was asked for is done."""
        if self.torch.type == "cuda":
            torch.cuda.synchronize()
        elif self.torch.type == "mps":
            torch.mps.synchronize()
