"""Why an item is in a slate: what actually moved its score, in words.

`online.slates` measures what each candidate source contributed; here the largest one becomes words.
"""

from __future__ import annotations

from online.events import EVENT_TYPES

_DID = {"view": "viewed", "click": "clicked", "cart": "put into the cart", "purchase": "bought",
        "rating": "rated"}  # fmt: skip


def did(kind: int) -> str:
    """The past tense of an event type: "bought" for a purchase."""
    return _DID.get(EVENT_TYPES[kind], "used")


ANCHORED = frozenset(
    {"co-visitation", "transition", "neighbours", "sequence"}
)  # they name the user's own item


def sentence(source: str, anchor: str, verb: str, count: int, own: int, category: str) -> str:
    """One reason for people.

    anchor: title of the user's item that speaks most for it, "" none; verb: what the user did with
    it; count: how often the item was taken by anybody; own: how often by this user.

    >>> sentence("co-visitation", "TEAPOT", "bought", 9, 0, "")
    'because you bought TEAPOT'
    """
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
    return f"popular: taken {count} times" if count != 1 else "popular: taken once"
