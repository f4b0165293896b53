"""What is read of reviews."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from encoders.sentiment import sentiment

REVIEWS = Path("amazon_musical_instruments/reviews.parquet")

GOOD = [
    "Great strings, they sound wonderful.", "I love this little amp! Best buy in years.",
    "Works perfectly and looks beautiful.", "Very happy with it. Excellent value.",
    "Not bad at all, I am pleased.",
]  # fmt: skip
BAD = [
    "It broke after a week. Terrible.", "Awful sound and poor quality, a waste of money.",
    "I hate it. The worst cable I ever had.", "Useless. I am very disappointed.",
    "Not good at all, I sent it back.",
]  # fmt: skip


def test_praise_and_complaints_are_told_apart() -> None:
    assert min(map(sentiment, GOOD)) > 0.1 > -0.1 > max(map(sentiment, BAD))


@pytest.mark.parametrize(
    "text",
    ["", " ", "\0\1", "2 x 4 mm", "Das Kabel ist kaputt", "非常好", "x" * 1_000_000, "\ud800"],
)
def test_what_is_not_understood_is_neutral(text: str) -> None:
    assert sentiment(text) == 0.0


def test_mark_up_and_length_change_nothing() -> None:
    assert sentiment("<b>Great</b> &amp; I love it") == sentiment("Great & I love it")
    assert sentiment(BAD[0] + " It is a cable." * 10_000) == sentiment(
        BAD[0] + " It is a cable." * 999
    )
    assert all(-1.0 <= sentiment(" ".join(some) * 50) <= 1.0 for some in (GOOD, BAD))


def test_it_separates_the_good_ratings_of_a_shop_from_the_bad() -> None:
    """Never trained on these; 0.88 over all of them."""
    reviews = Path(os.environ.get("TEST_DATA", "")) / REVIEWS
    if not reviews.exists():
        pytest.skip(f"TEST_DATA={os.environ.get('TEST_DATA')!r} is no folder with {REVIEWS}")
    some = pd.read_parquet(reviews)
    bad, good = some[some.rating <= 2], some[some.rating >= 4].sample(1_000, random_state=0)

    def said(of: pd.DataFrame) -> np.ndarray:
        both = zip(of.summary.fillna(""), of.review_text.fillna(""), strict=True)
        return np.array([sentiment(f"{summary}. {text}") for summary, text in both])

    higher = said(good)[:, None] - said(bad)
    assert ((higher > 0).mean() + (higher == 0).mean() / 2) >= 0.80
