"""The language model's process: `python -m streams.text_child` answers calls from stdin."""

from __future__ import annotations

import contextlib
import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import msgspec
import torch

from encoders.devices import DeviceError
from encoders.text import TextEncoder
from encoders.text_config import TextConfig, TextModelError
from infra.children import leave_signals_to_the_parent
from streams.core_protocol import Answer, Call, Outcome, decode, encode, receive, send

BEHIND = 4  # niceness of what reads a catalogue: somebody waits for a query, nobody for this


class TextServer:
    """One method for each call; `setup` comes first."""

    _encoder: TextEncoder

    def __init__(self) -> None:
        self._behind = ThreadPoolExecutor(1, "behind", partial(os.nice, BEHIND))

    def answer(self, call: Call) -> Answer:
        try:
            value = getattr(self, f"on_{call.method}")(call.arguments)
            return Answer(Outcome.DONE, msgspec.Raw(encode(value)))
        except (DeviceError, TextModelError) as error:  # they say the cure
            return Answer(Outcome.RAISED, msgspec.Raw(encode(str(error))))
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
            return Answer(Outcome.RAISED, msgspec.Raw(encode(said)))

    def on_setup(self, raw: msgspec.Raw) -> tuple[str, int]:
        """The model's name and the width of its vectors."""
        self._encoder = TextEncoder(decode(raw, type=TextConfig))
        self._encoder.encode(["first"])  # so that nobody waits for it later
        return self._encoder.name, self._encoder.width

    def on_encode_now(self, raw: msgspec.Raw) -> bytes:
        """Vectors (N, D) f4 of the texts."""
        vectors: bytes = self._encoder.encode(decode(raw, type=list[str])).tobytes()
        return vectors

    def on_encode(self, raw: msgspec.Raw) -> bytes:
        """The same, by a thread that gives way to others."""
        return self._behind.submit(self.on_encode_now, raw).result()


def serve() -> None:
    """Answer calls until the pipes end. Whatever prints goes to stderr."""
    leave_signals_to_the_parent()
    into, out = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    torch.set_num_threads(1)
    server = TextServer()
    with contextlib.suppress(BrokenPipeError), out:
        while (call := receive(into, Call)) is not None:
            send(out, server.answer(call))


if __name__ == "__main__":
    serve()
