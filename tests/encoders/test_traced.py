"""A transformer that runs without its Python says the same; one that cannot runs as it is."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from encoders.text_config import TextConfig
from encoders.text_models import Transformer
from encoders.traced import hidden_of, traced
from tests.tiny_model import tiny_model


def test_texts_of_other_numbers_and_lengths_than_were_tried_have_the_same_vectors(
    tmp_path: Path,
) -> None:
    model = Transformer(TextConfig(str(tiny_model(tmp_path, "abcdefgh")), device="cpu"))
    run = model._run
    assert run.__module__ == "encoders.traced"
    for texts in (["abc"], ["a", "abcdefgh" * 4], ["h"] * 7, ["abcd" * 90, "b"]):
        model._run = run
        quick = model.vectors(texts)
        model._run = lambda batch: hidden_of(model._model, batch)
        np.testing.assert_allclose(quick, model.vectors(texts), atol=1e-6)


class Forked(nn.Module):
    """Its ways depend on what comes: on how many texts, on how long they are, or on the words."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        self.embedding = nn.Embedding(50, 4)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> SimpleNamespace:
        hidden = self.embedding(input_ids)
        other = {"number": len(input_ids) > 1, "length": input_ids.shape[1] > 5,
                 "words": bool((input_ids > 40).any()), "fault": False}  # fmt: skip
        if self.way == "fault":
            hidden = torch.from_numpy(hidden.numpy())
        return SimpleNamespace(last_hidden_state=-hidden if other[self.way] else hidden)


@pytest.mark.parametrize("way", ["number", "length", "words", "fault"])
def test_a_model_with_ways_of_its_own_is_left_as_it_is(way: str) -> None:
    def batch(*rows: list[int]) -> dict[str, Tensor]:
        ids = torch.tensor(rows)
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

    batches = [batch([1, 2, 3], [4, 5, 6]), batch([7]), batch(list(range(20, 45)))]
    assert traced(Forked(way).eval(), batches) is None
