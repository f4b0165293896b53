"""Whether a review praises or complains.

VADER (Hutto and Gilbert 2014, "VADER: A parsimonious rule-based model for sentiment analysis of
social media text") rates words from a lexicon, with rules for negation, degree and emphasis. It was
made for short texts: of a long one the sum runs to an end of the scale whatever is said between. So
each sentence is rated on its own, and the mean counts. It reads English: of words that it does not
know it says nothing, and a text of such words is neutral.
"""

from __future__ import annotations

import functools
import re
from typing import Any

from encoders.wording import plain

LONGEST = 2_000  # characters of a review that are read: its beginning says it
_SENTENCE = re.compile(r"(?<=[.!?])\s+")


@functools.cache
def _reader() -> Any:
    from vaderSentiment.vaderSentiment import (
        SentimentIntensityAnalyzer,
    )  # 0.1 s, for those with reviews

    return SentimentIntensityAnalyzer()


def sentiment(text: str) -> float:
    """From -1 (all of it complains) to 1 (all of it praises), in steps of 0.001; 0 for what says
    neither, what is not understood, and an empty text.

    >>> sentiment("Great guitar. I love it!") > 0.5, sentiment("It broke. A terrible waste.") < -0.4
    (True, True)
    >>> sentiment("")
    0.0
    """
    rate = _reader().polarity_scores
    said = [rate(one)["compound"] for one in _SENTENCE.split(plain(text[:LONGEST])) if one]
    return round(sum(said) / len(said), 3) + 0.0 if said else 0.0
