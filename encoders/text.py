"""Texts as vectors, by a pretrained language model: texts of like meaning have a high product.

Titles and queries go through the same model, so a query finds what shares no word with it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from encoders.text_config import TextConfig
from encoders.text_models import text_model
from encoders.wording import plain


class TextEncoder:
    """A language model that takes any text. One caller at a time."""

    def __init__(self, config: TextConfig = TextConfig()) -> None:
        """Raises TextModelError, DeviceError."""
        self._at_once = config.at_once
        self._model = text_model(config)
        self.name = f"{config.model}@{self._model.version}"
        self.width = self._model.width
        self.precision = self._model.precision

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """(N, D) f4, each of length 1; an empty text is the null vector.

        A vector depends on its text alone, up to the last bits.
        """
        found = np.zeros((len(texts), self.width), np.float32)
        clean = [plain(text) for text in texts]
        lengths = np.array([len(text) for text in clean])
        order = np.argsort(lengths, kind="stable")  # like lengths together: little is padding
        order = order[lengths[order] > 0]
        for at in range(0, len(order), self._at_once):
            rows = order[at : at + self._at_once]
            found[rows] = self._model.vectors([clean[row] for row in rows])
        return found
