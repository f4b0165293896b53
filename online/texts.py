"""What texts say of items and queries: a vector each, and which items are alike.

A language model outside makes the vectors (`encoders.text`); here each is kept as bytes, with a
scale that makes it of length 1 again, so that a product of two is a sum of whole numbers: exact,
the same on every machine, and fast enough to look at every item (50,000 in under a millisecond).

An item's nearest by text lie beside it, kept up to date from both sides as items come: a user's
newest items lead to what resembles them without looking at all others. A query is kept like an
item that nobody can be shown: it is part of a user's sequence, has items that resemble it, and
learns which items were taken after it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import msgspec
import numpy as np

from online.compiled import compiled
from online.state import State
from online.tables import SLOT_MASK, Pause, Tables, longer

ALIKE = 32  # items kept that resemble one
QUERY = "\0"  # what the name of a query begins with: no item's id may
LONGEST_NAME = 200  # characters of a query that tell it from others
HASHED = 32  # digits in the name of a longer one


@dataclass(frozen=True)
class TextConfig:
    width: int = 0  # of the vectors; 0: texts are not understood
    model: str = ""  # that made them: those of another one mean something else

    @property
    def on(self) -> bool:
        return self.width > 0


class TextVector(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a language model made of the text of an item, or of a query (see `query_name`)."""

    name: str
    values: bytes  # f4, of length 1; b"": of an empty text


class Texts(NamedTuple):
    """By item slot (I)."""

    vector: np.ndarray  # (I, T) i1
    scale: np.ndarray  # (I,) f4 what makes it of length 1; 0: there is no text
    near: np.ndarray  # (I, ALIKE) i4 keys of the items most alike, in order, -1 none
    alike: np.ndarray  # (I, ALIKE) f4 how much: cosines
    least: np.ndarray  # (I,) f4 what is to be exceeded to come among them
    category: np.ndarray  # (I,) i4 number, 0 none
    brand: np.ndarray  # (I,) i4 number, 0 none
    price: np.ndarray  # (I,) f4 its logarithm, nan unknown


ROOM = -2.0  # below any cosine
_EMPTY: dict[str, float] = {"near": -1, "least": ROOM, "price": np.nan}


def query_name(query: str) -> str:
    """The name under which a query is kept: the same for all ways to type it.

    >>> query_name("Warm  gift"), query_name("warm gift ")
    ('\\x00warm gift', '\\x00warm gift')
    """
    words = " ".join(query.casefold().split())
    if len(words) > LONGEST_NAME:
        words = hashlib.blake2b(words.encode(), digest_size=16).hexdigest()
    return QUERY + words


def new_texts(width: int, items: int) -> Texts:
    """Nothing is known yet; with room for that many items."""
    return Texts(
        vector=np.zeros((items, width), np.int8),
        scale=np.zeros(items, np.float32),
        near=np.full((items, ALIKE if width else 0), -1, np.int32),
        alike=np.zeros((items, ALIKE if width else 0), np.float32),
        least=np.full(items, ROOM, np.float32),
        category=np.zeros(items, np.int32),
        brand=np.zeros(items, np.int32),
        price=np.full(items, np.nan, np.float32),
    )


def resized(x: Texts, items: int, pause: Pause) -> Texts:
    """The same with room for more; pause: as in `tables.longer`."""
    arrays = x._asdict().items()
    return Texts(**{name: longer(a, items, _EMPTY.get(name, 0), pause) for name, a in arrays})


def texts_state(x: Texts, items: int) -> State:
    """What is known of so many items; `restored` takes it back."""
    kept = {name: array[:items] for name, array in x._asdict().items()}
    del kept["least"]  # follows from the others
    return kept


def restored(state: State | None, width: int, items: int) -> Texts:
    """As when `state` was taken, with room for so many items; nothing if it was of another width:
    texts are then read again."""
    found = new_texts(width, items)
    if state is not None and state["vector"].shape[1] == width:
        arrays = found._asdict()
        for name, kept in state.items():
            arrays[name][: len(kept)] = kept
        if width:
            found.least[:] = np.where(found.near[:, -1] < 0, ROOM, found.alike[:, -1])
    return found


def bytes_of_an_item(width: int) -> int:
    return sum(array.nbytes for array in new_texts(width, 1))


# -- vectors ---------------------------------------------------------------------------------------


def quantised(vector: np.ndarray) -> tuple[np.ndarray, np.float32]:
    """A vector (T,) f4 as whole numbers from -127 to 127, and their scale."""
    largest = np.abs(vector).max(initial=0.0)
    if not largest > 0.0:
        return np.zeros(len(vector), np.int8), np.float32(0.0)
    whole = np.rint(vector * np.float32(127.0 / largest)).astype(np.int8)
    length = np.sqrt((whole.astype(np.float64) ** 2).sum())
    return whole, np.float32(1.0 / length)


@compiled
def products(vector: np.ndarray, one: np.ndarray, out: np.ndarray) -> None:
    """out (N,) i4: products of rows (N, T) i1 with one (T,) i1."""
    for j in range(len(out)):
        total = np.int32(0)
        for k in range(vector.shape[1]):
            total += np.int32(vector[j, k]) * np.int32(one[k])
        out[j] = total


@compiled
def _place(x: Texts, j: int, key: int, value: np.float32) -> None:
    """Put a key among the nearest of item j; `value` is more than its least."""
    near, alike = x.near[j], x.alike[j]
    at = len(near) - 1
    while at > 0 and (near[at - 1] < 0 or alike[at - 1] < value):
        near[at], alike[at] = near[at - 1], alike[at - 1]
        at -= 1
    near[at], alike[at] = key, value
    if near[-1] >= 0:
        x.least[j] = alike[-1]


@compiled
def _take_out(x: Texts, j: int, at: int) -> None:
    near, alike, n = x.near[j], x.alike[j], x.near.shape[1]
    for m in range(at, n - 1):
        near[m], alike[m] = near[m + 1], alike[m + 1]
    near[n - 1], alike[n - 1] = -1, 0.0
    x.least[j] = ROOM


@compiled
def _unlink(x: Texts, rows: int, key: int) -> None:
    """Take an item out of the others' nearest."""
    near = x.near
    for j in range(rows):
        for at in range(near.shape[1]):
            if near[j, at] == key:
                _take_out(x, j, at)
                break


@compiled
def link(t: Tables, x: Texts, rows: int, slot: int, both: bool, out: np.ndarray) -> None:
    """Find the items nearest to the one in `slot` by text; if `both`, it is found from them too.

    rows: slots in use; out: (≥ rows,) i4, work space. Nothing is linked to what cannot be shown.
    """
    scale, keys, known, least = x.scale, t.key, t.known, x.least
    x.near[slot, :] = -1
    x.alike[slot, :] = 0.0
    x.least[slot] = ROOM
    if scale[slot] == 0.0:
        return
    products(x.vector[:rows], x.vector[slot], out[:rows])
    for j in range(rows):
        if j == slot or scale[j] == 0.0:
            continue
        value = np.float32(out[j]) * (scale[slot] * scale[j])
        if known[j] and value > least[slot]:
            _place(x, slot, keys[j], value)
        if both and value > least[j]:  # nearly never: calls cost more than all the rest
            _place(x, j, keys[slot], value)


@compiled
def most_alike(
    t: Tables, x: Texts, rows: int, one: np.ndarray, scale: np.float32, out: np.ndarray,
    slots: np.ndarray, values: np.ndarray,
) -> int:  # fmt: skip
    """The known items nearest to a vector: fills slots (K,) and values (K,), best first; how many.

    one: (T,) i1 with its scale; out: (≥ rows,) i4, work space.
    """
    products(x.vector[:rows], one, out[:rows])
    n, k = 0, len(slots)
    for j in range(rows):
        if x.scale[j] == 0.0 or t.known[j] == 0:
            continue
        value = np.float32(out[j]) * (scale * x.scale[j])
        if n == k and value <= values[k - 1]:
            continue
        at = min(n, k - 1)
        while at > 0 and values[at - 1] < value:
            values[at], slots[at] = values[at - 1], slots[at - 1]
            at -= 1
        values[at], slots[at] = value, j
        n = min(n + 1, k)
    return n


def put_text(
    t: Tables, x: Texts, rows: int, slot: int, values: bytes, showable: bool, out: np.ndarray
) -> bool:
    """The text of the item, or query, in a slot is this now; False when it was before.

    rows: slots in use; showable: an item; out: (≥ rows,) i4, work space.
    """
    vector, scale = quantised(np.frombuffer(values, np.float32))
    if not len(vector):
        vector = np.zeros(x.vector.shape[1], np.int8)
    had = x.scale[slot] != 0.0
    if had and scale == x.scale[slot] and (vector == x.vector[slot]).all():
        return False
    if had and showable:
        _unlink(x, rows, t.key[slot])
    x.vector[slot], x.scale[slot] = vector, scale
    link(t, x, rows, slot, showable, out)
    return True


@compiled
def _unlink_near(t: Tables, x: Texts, slot: int) -> None:
    """Take an item out of the nearest of its own nearest: most of those who have it."""
    near, own = x.near, t.key[slot]
    for k in range(near.shape[1]):
        key = near[slot, k]
        other = key & SLOT_MASK
        if key < 0 or t.key[other] != key:
            continue
        for at in range(near.shape[1]):
            if near[other, at] == own:
                _take_out(x, other, at)
                break


def drop_text(t: Tables, x: Texts, slot: int) -> None:
    """The slot is another's from now on: keys that led to it lead nowhere."""
    _unlink_near(t, x, slot)
    x.scale[slot] = 0.0
    x.near[slot] = -1
    x.alike[slot] = 0.0
    x.least[slot] = ROOM
    x.category[slot] = x.brand[slot] = 0
    x.price[slot] = np.nan


def named(names: Sequence[str], numbers: dict[str, int], most: int) -> list[int]:
    """Numbers of categories or brands, from 1 on; 0 for none, and beyond `most` different ones.

    >>> named(["tea", "", "cups", "tea"], {}, 9)
    [1, 0, 2, 1]
    """
    found = []
    for name in names:
        number = numbers.get(name, 0) if name else 0
        if name and not number and len(numbers) < most:
            number = numbers[name] = len(numbers) + 1
        found.append(number)
    return found
