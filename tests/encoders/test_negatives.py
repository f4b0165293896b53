"""Wrong answers of `tune-text`: how often each is drawn is known; scores are corrected by it."""

from __future__ import annotations

import numpy as np

from encoders.tuning import Negatives, Shop


def test_items_are_drawn_as_often_as_expected() -> None:
    popularity = np.array([100.0, 50.0, 10.0, 5.0, 1.0, 1.0, 0.0, 30.0])
    texts = [f"thing {n}" for n in range(7)] + [""]  # of the last nothing is said
    shop = Shop(texts, popularity, np.array([0, 0, 0, 1, 1, 1, -1, 1]))
    negatives = Negatives(shop, 6, np.random.default_rng(0))
    asked = np.array([0, 0, 0, 0, 3, 6])  # mostly of the first category; one of none
    drawn = np.zeros(8)
    for _ in range(4_000):
        drawn += np.bincount(negatives.draw(asked), minlength=8)
    assert np.allclose(drawn / 4_000, negatives.expected(asked), atol=0.06)
    assert drawn[7] == 0
