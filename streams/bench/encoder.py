"""`freshrec bench encoder`: what the sequence encoder costs, beside what the device can do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
import torch

from encoders.devices import Device
from online.sequence import BYTES_OF_A_USER, rows_within
from online.teaching import EncoderConfig
from streams.bench import encoder_training
from streams.bench.encoder_serving import Serving, differences, torch_advance
from streams.bench.encoder_work import (
    EncoderPlan,
    event_flops,
    random_events,
    random_model,
    random_vectors,
)
from streams.bench.machine import machine
from streams.bench.timing import one_thread, timed

Say = Callable[[str, int, int], None]

LIMIT_MS = 8.0  # median for one event of 256 users
LIMIT_DIFFERENCE = 1e-4  # between the forms' queries
ITEMS = 2_000  # whose vectors the sequences take
COMPARED = 16  # users whose queries are compared between the forms
SIDES = {"cpu": (256, 512, 1024, 2048), "mps": (1024, 2048, 4096), "cuda": (2048, 4096, 8192)}


def run(plan: EncoderPlan, say: Say) -> dict[str, Any]:
    """Every figure in turn, in one thread. Raises DeviceError when the device is not there."""
    device = Device.named(plan.device)
    with one_thread():
        bench = _Bench(plan, device, say)
        return {
            "benchmark": "encoder",
            **bench.circumstances(),
            **bench.figures(),
            "machine": machine(),
        }


class _Bench:
    def __init__(self, plan: EncoderPlan, device: Device, say: Say) -> None:
        self._plan, self._device, self._say = plan, device, say
        rng = np.random.default_rng(plan.seed)
        self._vectors = random_vectors(rng, ITEMS, plan.shape.width)
        self._events = partial(random_events, rng, items=ITEMS)
        self._model = random_model(plan.shape, plan.seed).to(device.torch)
        self._forward = device.compiled(self._model) if plan.compiled else self._model
        kind = device.torch.type
        self._precision = "bfloat16" if kind == "cuda" else "float32"
        self._peaks: dict[str, float] = {}

    def circumstances(self) -> dict[str, Any]:
        kind = self._device.torch.type
        return {
            "device": kind,
            "device_name": torch.cuda.get_device_name() if kind == "cuda" else "",
            "precision": self._precision,  # of whole sequences and of training
            "threads": 1,
            "torch": torch.__version__,
            "torch_compile": self._plan.compiled,
            "seconds": self._plan.seconds,
            "shape": asdict(self._plan.shape),
        }

    def figures(self) -> dict[str, Any]:
        parts: dict[str, Callable[[], Any]] = {
            "peak_gflops": self._peak_gflops,
            "whole_sequences": self._whole_sequences,
            "one_event": self._one_event,
            "training": self._training,
            "differences": self._differences,
            "state": self._state,
            "nearest": self._nearest,
        }
        found = {}
        for n, (name, part) in enumerate(parts.items()):
            self._say(name.replace("_", " "), n, len(parts))
            found[name] = part()
        return found

    # -- what the device can do ------------------------------------------------------------------

    def _peak_gflops(self) -> dict[str, float]:
        """Matrix products: of the processor, where the core serves, and of the device."""
        cpu, kind = Device.named("cpu"), self._device.torch.type
        self._peaks["cpu float32"] = self._peak(cpu, torch.float32)
        if kind != "cpu":
            self._peaks[f"{kind} float32"] = self._peak(self._device, torch.float32)
        if kind == "cuda":
            self._peaks[f"{kind} bfloat16"] = self._peak(self._device, torch.bfloat16)
        return {name: round(peak, 2) for name, peak in self._peaks.items()}

    def _peak(self, device: Device, kind: torch.dtype) -> float:
        """GFLOP/s of the size that is multiplied fastest."""
        sides = self._plan.sides or SIDES[device.torch.type]
        best = 0.0
        for side in sides:
            a = torch.randn(side, side, device=device.torch).to(kind)
            product = partial(torch.matmul, a, a, out=torch.empty_like(a))
            timing = timed(product, self._plan.seconds / len(sides), device)
            best = max(best, timing.gflops(2.0 * side**3))
        return best

    @property
    def _device_peak(self) -> float:
        return self._peaks[f"{self._device.torch.type} {self._precision}"]

    # -- the encoder -----------------------------------------------------------------------------

    @torch.inference_mode()
    def _whole_sequences(self) -> list[dict[str, Any]]:
        """SequenceModel.forward: the queries after every event, from the vectors on the device."""
        plan, rows = self._plan, []
        for users in plan.batches:
            x = self._events(users=users, length=plan.length)
            call = partial(self._forward, **x.torch_inputs(self._vectors, self._device))
            with self._device.autocast():
                timing = timed(call, plan.seconds, self._device)
            flops = users * plan.length * event_flops(plan.shape)
            rows.append({
                "users": users,
                "events": plan.length,
                "encodes_per_second": round(users * timing.per_second, 1),
                **timing.report(flops, self._device_peak),
            })  # fmt: skip
        return rows

    def _one_event(self) -> dict[str, Any]:
        rows = [self._after(length) for length in self._plan.histories]
        slowest = max(row["compiled"]["p50_ms"] for row in rows)
        return {
            "users": self._plan.users,
            "histories": rows,
            "limit_ms": LIMIT_MS,
            "of_limit": round(slowest / LIMIT_MS, 4),
            "growth": {  # of the median, from the shortest history to the longest
                form: round(rows[-1][form]["p50_ms"] / rows[0][form]["p50_ms"], 3)
                for form in ("compiled", "torch")
            },
        }

    def _after(self, length: int) -> dict[str, Any]:
        """States made from so many events, and moved by one more, in both forms."""
        plan, device = self._plan, self._device
        serving = Serving(self._model, self._vectors, plan.users)
        rebuilt = serving.time_rebuild(self._events(users=1, length=length), plan.seconds)
        event = self._events(users=plan.users, length=1)
        call = torch_advance(self._model, serving.state, event, self._vectors, device)
        flops, peaks = plan.users * event_flops(plan.shape), self._peaks
        kind = device.torch.type
        return {
            "events": length,
            "rebuild_us_per_user": round(1000.0 * rebuilt.p50 / plan.users, 3),
            "compiled": serving.time_advance(event, length, plan.seconds).report(
                flops, peaks["cpu float32"]
            ),
            "torch": timed(call, plan.seconds, device).report(flops, peaks[f"{kind} float32"]),
        }

    def _training(self) -> list[dict[str, Any]]:
        return [
            encoder_training.measure(self._plan, self._device, items, self._device_peak)
            for items in self._plan.catalogues
        ]

    def _differences(self) -> dict[str, float]:
        events = self._events(users=COMPARED, length=self._plan.length)
        found = differences(self._model, events, self._vectors, self._device)
        return {**found, "limit": LIMIT_DIFFERENCE}

    def _state(self) -> dict[str, Any]:
        channels, megabytes = self._plan.shape.channels, EncoderConfig().states_mb
        return {
            "bytes_per_user": 4 * channels + BYTES_OF_A_USER,
            "megabytes": megabytes,
            "users": rows_within(megabytes, channels),
        }

    def _nearest(self) -> list[dict[str, Any]]:
        from streams.bench.index import bench_index

        return [bench_index(items, self._plan.seed) for items in self._plan.indexed]
