"""What is read of a text: words in one line, without mark-up and without what cannot be shown."""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Iterable

LONGEST = 4_000  # characters of a text that are looked at: many times what a model reads
_TAG = re.compile(r"<[/!?a-zA-Z][^<>]{0,1000}>")


def plain(text: str) -> str:
    """The text as a model reads it.

    Marks that only direct the layout (right-to-left, zero width) and control characters are
    dropped; HTML's tags are dropped and its entities read. Compatibility forms are the same
    (NFKC): full-width letters, ligatures.

    >>> plain("<b>Tea &amp; Co</b>\\n\\u200f caf\\u00e9\\x00")
    'Tea & Co café'
    """
    text = html.unescape(_TAG.sub(" ", text[:LONGEST]))
    text = unicodedata.normalize("NFKC", text)[:LONGEST]
    kept = (c if unicodedata.category(c)[0] != "C" or c == "\u200d" else " " for c in text)
    return " ".join("".join(kept).split())


def item_text(title: str, brand: str, category: str, tags: Iterable[str], description: str) -> str:
    """All that is said of an item, the most telling first: a model may not read the end.

    A category or tag without a letter (a number of the shop's own) says nothing and is left out.

    >>> item_text("RED MUG", "", "17", ["gift"], "<p>Holds tea.</p>")
    'RED MUG. gift. Holds tea.'
    """
    parts = [plain(part) for part in (title, brand, category, *tags, description)]
    return ". ".join(part for part in parts if any(c.isalpha() for c in part))
