"""Why an item is in a slate: what actually moved its score, in words.

`online.slates` measures what each candidate source contributed; here the largest one becomes words.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from online.events import EVENT_TYPES

_DID = {"view": "viewed", "click": "clicked", "cart": "put into the cart", "purchase": "bought",
        "rating": "rated", "search": "searched for"}  # fmt: skip


def did(kind: int) -> str:
    """The past tense of an event type: "bought" for a purchase."""
    return _DID.get(EVENT_TYPES[kind], "used")


ANCHORED = frozenset(
    {"co-visitation", "transition", "neighbours", "sequence", "text", "category"}
)  # they name the user's own item, or query
# scripts that are written without spaces: Thai, Lao, Myanmar, Khmer, kana, CJK
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_PART = rf"[^\W{_UNSPACED}]+"
_WORD = re.compile(rf"[{_UNSPACED}]+|{_PART}(?:[-./]{_PART})*")  # ZX-481 is one word
_PARTS = re.compile(_PART)
LEAST = 3  # letters that a word has; a code, with digits, may be shorter


def shared_words(one: str, other: str, most: int = 3) -> list[str]:
    """Words of three letters and more, and codes, that both have, as `one` writes them, in order.

    Of a script without spaces, what both have of two characters and more.

    >>> shared_words("RED TEA POT", "a red pot for tea")
    ['RED', 'TEA', 'POT']
    >>> shared_words("an A4 case for zx-481", "ZX-481, A4")
    ['A4', 'zx-481']
    >>> shared_words("zx 481, set of 12", "ZX-481, pack of 12")
    ['481']
    >>> shared_words("红茶壶", "陶瓷茶壶 红色")
    ['茶壶']
    """
    theirs = {_folded(part) for word in _WORD.findall(other) for part in (word, *_parts(word))}
    ours: dict[str, str] = {}
    for word in _WORD.findall(one):
        if re.match(f"[{_UNSPACED}]", word):
            ours |= {run: run for run in _shared_runs(word, other)}
            continue
        whole = _is_code(word) and _folded(word) in theirs
        for part in [word] if whole else _parts(word):
            if _folded(part) in theirs:
                ours.setdefault(_folded(part), part)
    return list(ours.values())[:most]


def _parts(word: str) -> list[str]:
    return [part for part in _PARTS.findall(word)
            if len(part) >= LEAST or _is_code(part)]  # fmt: skip


def _is_code(word: str) -> bool:
    """A4 is one; 12 is how many there are in a pack."""
    return any(c.isdigit() for c in word) and any(c.isalpha() for c in word)


def _shared_runs(run: str, other: str) -> Iterator[str]:
    """The parts of a run that the other text has, as long as can be."""
    least, at = min(2, len(run)), 0
    while at + least <= len(run):
        end = at + least
        if run[at:end] not in other:
            at += 1
            continue
        while end < len(run) and run[at : end + 1] in other:
            end += 1
        yield run[at:end]
        at = end


def _folded(word: str) -> str:
    """One mug and two mugs are the same word."""
    return word.casefold().removesuffix("s")


def sentence(
    source: str, anchor: str, verb: str, count: int, own: int, category: str,
    words: Sequence[str] = (),
) -> str:  # fmt: skip
    """One reason for people.

    anchor: title of the user's item (or the query) that speaks most for it, "" none; verb: what
    the user did with it; count: how often the item was taken by anybody; own: how often by this
    user; category: that it is of, or its brand; words: that it shares with the anchor.

    >>> sentence("co-visitation", "TEAPOT", "bought", 9, 0, "")
    'because you bought TEAPOT'
    >>> sentence("text", "RED TEAPOT", "viewed", 0, 0, "", ["TEAPOT"])
    'similar to RED TEAPOT, which you viewed (TEAPOT)'
    """
    both = f" ({', '.join(words)})" if words else ""
    if source == "text" and anchor:
        if verb == _DID["search"]:
            return f"fits your search for {anchor}{both}"
        return f"similar to {anchor}, which you {verb}{both}"
    if source == "text":
        return "resembles what you took lately"
    if source == "category":
        more = f"more from {category}" if category else "in the range of what you took lately"
        return f"{more}, like {anchor}, which you {verb}" if category and anchor else more
    if source == "repeats" and own > 0:
        return f"you took it {own} times before" if own > 1 else "you took it before"
    if source == "co-visitation" and anchor:
        return f"because you {verb} {anchor}"
    if source == "transition" and anchor:
        return f"often next after {anchor}, which you {verb}"
    if source == "sequence":
        return (
            f"fits what you {verb} lately, {anchor} last" if anchor else "fits what you took lately"
        )
    if source == "neighbours" and anchor:
        return f"shoppers who took {anchor} lately took this too"
    if source == "trending":
        return f"trending in {category}" if category else "trending now"
    if count == 0:
        return "new: nobody took it yet"
    return f"popular: taken {count} times" if count != 1 else "popular: taken once"
