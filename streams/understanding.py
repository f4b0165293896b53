"""The texts of a catalogue, for a backtest: read by a model in this process, once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from encoders.text import TextEncoder
from encoders.text_config import BUNDLED, TextConfig
from infra.vector_files import cache_folder, read_vectors, write_vectors
from online.events import Item
from online.texts import TextVector
from streams.texts import TextReader


@dataclass(frozen=True)
class Understood:
    """What a model made of a catalogue."""

    model: str  # its name and what tells it from others of that name
    precision: str
    width: int
    items: list[TextVector]
    reader: TextReader  # for what is searched for


def understand(items: list[Item], model: str | None, progress: Callable[[int], None]) -> Understood:
    """Read the items' texts; what was read before, by the same model, comes from a file.

    model: a folder or hub id, None: the one that is included. Raises TextModelError.
    """
    torch.set_num_threads(1)  # more are slower as soon as anything else runs
    encoder = TextEncoder(TextConfig(model=model or BUNDLED))
    # a precision has vectors of its own: a report depends on the one that it was made with, only
    path = _kept(f"{encoder.name} {encoder.precision}")
    kept = read_vectors(path, encoder.width)
    reader = TextReader(encoder.encode, kept)
    vectors = reader.of_items(items, progress)
    known = {**kept, **reader.made}
    if reader.made:
        write_vectors(path, known)
    # what is searched for is not kept: a log may have any number of queries
    asked = TextReader(encoder.encode, known, keeps=False)
    return Understood(encoder.name, encoder.precision, encoder.width, vectors, asked)


def _kept(model: str) -> Path:
    digest = hashlib.blake2b(model.encode(), digest_size=8).hexdigest()
    return cache_folder() / f"texts-{digest}.safetensors"
