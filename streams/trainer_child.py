"""The trainer's process: `python -m streams.trainer_child` answers calls from stdin."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

import msgspec
import numpy as np
import torch

from encoders.config import Shape, TrainingConfig
from encoders.devices import Device, DeviceError
from encoders.trainer import Learned, Trainer
from infra.checkpoint import CheckpointError, read_checkpoint
from infra.children import leave_signals_to_the_parent
from infra.parts import read_part, write_part
from infra.tensors import Damaged
from streams.core_protocol import Answer, Call, Outcome, decode, encode, receive, send
from streams.trainer_protocol import Setup, Taught, pack, unpack

LAST = 19  # niceness


class TrainerServer:
    """One method for each call; `setup` comes first."""

    _trainer: Trainer
    _last: Taught | None = None  # what came of the newest lesson

    def answer(self, call: Call) -> Answer | None:
        """What the trainer says to a call; nothing to `save`, which nobody waits for."""
        if call.method == "save":
            self.on_save(call.arguments)
            return None
        try:
            value = getattr(self, f"on_{call.method}")(call.arguments)
            return Answer(Outcome.DONE, msgspec.Raw(encode(value)))
        except (DeviceError, CheckpointError, Damaged) as error:  # they say the cure
            return Answer(Outcome.RAISED, msgspec.Raw(encode(str(error))))
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
            return Answer(Outcome.RAISED, msgspec.Raw(encode(said)))

    def on_setup(self, raw: msgspec.Raw) -> None:
        setup = decode(raw, type=Setup)
        shape = Shape(setup.width, setup.channels, setup.hidden)
        training = TrainingConfig(rows=setup.rows, seed=setup.seed)
        self._trainer = Trainer(shape, training, Device.named(setup.device), setup.slot_mask)

    def on_learn(self, raw: msgspec.Raw) -> Taught:
        number, steps, *columns = decode(
            raw, type=tuple[int, int, bytes, bytes, bytes, bytes, bytes]
        )
        started = time.perf_counter()
        user, item, kind, price, ts = unpack(columns)
        learned = self._trainer.learn(number, steps, user, item, kind, price, ts)
        self._last = _taught(learned, time.perf_counter() - started)
        return self._last

    def on_start(self, raw: msgspec.Raw) -> Taught:
        """Restore a checkpoint: its folder, and the keys of its items."""
        folder, keys = decode(raw, type=tuple[str, bytes])
        _, tensors = read_checkpoint(Path(folder))
        return _taught(self._trainer.restore(tensors, np.frombuffer(keys, np.int64)), 0.0)

    def on_save(self, raw: msgspec.Raw) -> None:
        """Keep everything under the name that is given; the note says what became of it."""
        last = b""
        if (
            self._last is not None
        ):  # but for the time that it took: the same learning, the same file
            last = encode(msgspec.structs.replace(self._last, seconds=0.0))
        write_part(Path(decode(raw, type=str)), {**self._trainer.state(), "last": last})

    def on_resume(self, raw: msgspec.Raw) -> None:
        """Be as when that was saved."""
        place, digest = decode(raw, type=tuple[str, str])
        state = read_part(Path(place), digest)
        self._last = decode(state["last"], type=Taught) if state["last"] else None
        self._trainer.resume(state)

    def on_again(self, _: msgspec.Raw) -> Taught | None:
        """What came of the newest lesson."""
        return self._last

    def on_roll_back(self, raw: msgspec.Raw) -> None:
        self._trainer.roll_back(decode(raw, type=int))


def _taught(learned: Learned, seconds: float) -> Taught:
    dense = {name: pack(array) for name, array in learned.dense.items()}
    arrays = (pack(learned.item), pack(learned.vector), pack(learned.bias))
    return Taught(dense, *arrays, learned.loss, learned.skipped, seconds)


def _stand_back() -> None:
    """Run when nobody else wants to: what serves goes first, always."""
    os.nice(LAST)
    if hasattr(os, "SCHED_IDLE"):  # Linux: niceness alone still takes an eighth from the core
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def serve() -> None:
    """Answer calls until the pipes end. Whatever prints goes to stderr."""
    leave_signals_to_the_parent()
    _stand_back()
    into = os.fdopen(os.dup(0), "rb")
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    torch.set_num_threads(1)
    server = TrainerServer()
    with contextlib.suppress(BrokenPipeError), out:
        while (call := receive(into, Call)) is not None:
            if (answer := server.answer(call)) is not None:
                send(out, answer)


if __name__ == "__main__":
    serve()
