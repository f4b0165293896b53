"""Bounded memory: which users and items are held, where, and who gives way when it is full."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import msgspec
import numpy as np

from online import tables as tb
from online.events import Item
from online.features import Scratch, new_scratch
from online.history import drop_user
from online.observe import expire, know
from online.pairs import free_entries
from online.sequence import (
    NOWHERE,
    Sequences,
    new_sequences,
    release,
    resized,
    rows_within,
    sequences_restored,
    sequences_state,
)
from online.slots import Slots
from online.state import State
from online.tables import ITEMS_KNOWN, PAGES_FREE, PAIRS_USED, Tables
from online.teaching import EncoderConfig
from online.texts import (
    HASHED,
    QUERY,
    TextConfig,
    Texts,
    TextVector,
    bytes_of_an_item,
    drop_text,
    named,
    new_texts,
    put_text,
    restored,
    texts_state,
)
from online.texts import resized as resized_texts

PART = 512  # events that room is made for at once
QUERIES = 10  # one in so many slots of items may be a query's


def _lowest(history: int) -> dict[str, int]:
    """The least bounds.

    A user whose rows are not yet written must not be evicted: with room for this many, the least
    recently used one is never among the last few batches; and the longest histories of as many
    users as one part of a batch may have fit twice.
    """
    pages = max(20_000, 2 * PART * -(-history // tb.PAGE))
    return {"users": 10_000, "items": 1_000, "pages": pages, "pairs": 10_000}


@dataclass(frozen=True)
class MemoryConfig:
    """Upper bounds of the tables; they start small and double. Bytes: see `bytes_at_most`."""

    users: int = 200_000  # histories held; the rest is read from the warehouse when they return
    items: int = 250_000  # the least recently used is forgotten
    pages: int = 400_000  # of 16 events each, for all histories together
    pairs: int = 10_000_000  # (item, neighbour) entries
    history: int = 1024  # events kept of one user

    def __post_init__(self) -> None:
        for name, low in {**_lowest(self.history), "history": 64}.items():
            if getattr(self, name) < low:
                raise ValueError(f"memory.{name}={getattr(self, name)}: at least {low} is needed")
        for name in ("users", "items"):
            if getattr(self, name) >= 1 << tb.SLOT_BITS:
                raise ValueError(
                    f"memory.{name}={getattr(self, name)}: at most {(1 << tb.SLOT_BITS) - 1}"
                )

    @classmethod
    def within(cls, megabytes: float, text: int = 0) -> MemoryConfig:
        """The default proportions, scaled so that the tables take at most this many MB (2^20).

        text: width of the texts' vectors.

        >>> MemoryConfig.within(200).bytes_at_most() <= 200 * 2**20
        True
        """
        usual = cls()
        factor = megabytes * 2**20 / usual.bytes_at_most(text)
        bounds = {name: int(getattr(usual, name) * factor) for name in _lowest(usual.history)}
        return cls(**{n: max(bounds[n], low) for n, low in _lowest(usual.history).items()})

    def bytes_at_most(self, text: int = 0) -> int:
        """What the tables and their ids take when full; text: width of the texts' vectors."""
        small = tb.new_tables(1, 1, 1, tb.ROW_FIRST)
        per = {f: a.nbytes // len(a) for f, a in small._asdict().items()}
        item = sum(per[f] for f in tb.ITEM_TABLES) + 4 + 92 + 300 + bytes_of_an_item(text)
        user = sum(per[f] for f in tb.USER_TABLES) + 8 + 200
        page = sum(per[f] for f in tb.PAGE_TABLES) + 4
        pair = sum(per[f] for f in tb.PAIR_TABLES) + 4 * tb.ROW_CLASSES / tb.ROW_FIRST
        return int(item * self.items + user * self.users + page * self.pages + pair * self.pairs)


def _doubled(rows: int, needed: int, bound: int) -> int:
    """`rows` doubled until `needed` fit, never above `bound`: slots that were freed serve again."""
    while rows < min(needed, bound):
        rows = min(2 * rows, bound)
    return rows


class Memory:
    def __init__(
        self, config: MemoryConfig, encoder: EncoderConfig | None = None,
        text: TextConfig = TextConfig(),
    ) -> None:  # fmt: skip
        """encoder: None, and there will be no user states."""
        self.config = config
        self.users = Slots(config.users)
        self.items = Slots(config.items)
        self.tables: Tables = tb.new_tables(1024, 1024, 2048, 1 << 16)
        shape = (encoder.width, encoder.channels, encoder.hidden) if encoder else (0, 0, 0)
        self._states = 0  # of users, at most
        if encoder is not None:
            self._states = min(rows_within(encoder.states_mb, encoder.channels), config.users)
        rows = min(self._states, 1024)
        self.sequences: Sequences = new_sequences(*shape, 1024, 1024, rows)
        self.scratch: Scratch = new_scratch(1024, 1024, config.history, shape[0], text.width)
        self._text_model = text.model
        self.texts: Texts = new_texts(text.width, 1024)
        self._products = np.zeros(1024, np.int32)  # work space
        self._queries: OrderedDict[str, None] = OrderedDict()  # the one used longest ago first
        # called between parts of what takes long; what counts is the whole of before or of after
        self.pause: Callable[[], None] = lambda: None
        self._categories: dict[str, int] = {}
        self._brands: dict[str, int] = {}
        self._catalogue: dict[str, Item] = {}
        self._limited: OrderedDict[str, tuple[bool, int]] = OrderedDict()  # hidden, available from

    # -- room --------------------------------------------------------------------------------

    def make_room(self, users: int = 0, items: int = 0, pages: int = 0, events: int = 0) -> None:
        """Grow, or let the least recently used go, so that this many more will fit."""
        bound = self.config
        while len(self.users) + users > bound.users:
            self.drop_user(self.users.oldest())
        while len(self.items) + items > bound.items:
            self.expire_item()
        self._grow(users, items)
        t = self.tables
        while t.clock[PAGES_FREE] < pages and len(t.page_older) < bound.pages:
            rows = min(2 * len(t.page_older), bound.pages)
            t = self.tables = tb.grow_pages(t, rows, self.pause)
        while t.clock[PAGES_FREE] < pages and len(self.users) > 1:
            self.drop_user(self.users.oldest())
        self._make_pair_room(events)

    def _grow(self, users: int, items: int) -> None:
        t, bound = self.tables, self.config
        item_rows = _doubled(len(t.taken), self.items.rows + items, bound.items)
        user_rows = _doubled(len(t.user_n), self.users.rows + users, bound.users)
        if item_rows > len(t.taken):
            t = tb.grow_items(t, item_rows, self.pause)
        if user_rows > len(t.user_n):
            t = tb.grow_users(t, user_rows, self.pause)
        if t is not self.tables:
            width = self.sequences.vector.shape[1]
            text = self.texts.vector.shape[1]
            rows = min(self._states, user_rows)
            sequences = resized(self.sequences, item_rows, user_rows, rows, self.pause)
            texts = resized_texts(self.texts, item_rows, self.pause)
            self.scratch = new_scratch(item_rows, user_rows, bound.history, width, text)
            self._products = np.zeros(item_rows, np.int32)
            self.tables, self.sequences, self.texts = t, sequences, texts

    def _make_pair_room(self, events: int) -> None:
        """Every event may enlarge a few dozen rows. Growth doubles, then old items give way."""
        t, need = self.tables, min(events * 512, self.config.pairs // 4)
        while t.clock[PAIRS_USED] + need > len(t.pair_item) < self.config.pairs:
            rows = min(2 * len(t.pair_item), self.config.pairs)
            t = self.tables = tb.grow_pairs(t, rows, self.pause)
        if t.clock[PAIRS_USED] + need > len(t.pair_item):
            low = min(events * 40, self.config.pairs // 8)
            while free_entries(t) < low and len(self.items) > 1:
                self.expire_item()

    # -- users and items ---------------------------------------------------------------------

    def take_user(self, user_id: str) -> int:
        return self.users.take(user_id)

    def take_item(self, item_id: str) -> int:
        """The item's slot, a new one if it has none; -1 for "no item"."""
        if not item_id:
            return -1
        slot = self.items.take(item_id)
        if item_id in self._limited:
            self._apply_limit(item_id, slot)
        return slot

    def drop_user(self, user_id: str) -> None:
        """Hold the user no longer; the history is read again when the user returns."""
        slot = self.users.give_up(user_id)
        drop_user(self.tables, slot)
        release(self.sequences, slot)

    def expire_item(self) -> None:
        """Forget the item that was used longest ago."""
        self.expire(self.items.oldest())

    def expire(self, item_id: str) -> None:
        """Forget an item, or a query, if it is held."""
        self._catalogue.pop(item_id, None)
        self._queries.pop(item_id, None)
        if item_id not in self.items:
            return
        slot = self.items.give_up(item_id)
        drop_text(self.tables, self.texts, slot)
        expire(self.tables, slot)
        self.sequences.vector[slot], self.sequences.bias[slot] = 0.0, NOWHERE
        self.sequences.inverse[slot] = 0.0

    def _take_query(self, name: str) -> None:
        """A slot for a query. Queries make room for each other: none drives out an item."""
        self._queries[name] = None
        self._queries.move_to_end(name)
        if self.items.touch(name):
            return
        if len(self._queries) > max(self.config.items // QUERIES, 100):
            oldest, _ = self._queries.popitem(last=False)
            self.expire(oldest)
        self.make_room(items=1)
        self.take_item(name)

    # -- catalogue ---------------------------------------------------------------------------

    def announce(self, item: Item) -> None:
        self.make_room(items=1)
        slot = self.take_item(item.item_id)
        know(self.tables, slot)
        self._catalogue[item.item_id] = item
        hidden = item.stock is not None and item.stock <= 0
        self._limit(item.item_id, hidden, item.available_from or 0)
        self._describe(slot, item)

    def _describe(self, slot: int, item: Item) -> None:
        x, most = self.texts, self.config.items
        (x.category[slot],) = named([item.category], self._categories, most)
        (x.brand[slot],) = named([item.brand], self._brands, most)
        x.price[slot] = math.log(item.price) if item.price and item.price > 0 else np.nan

    def without_text(self) -> list[str]:
        slots = {name: self.items.get(name) for name in self._catalogue}
        none = [name for name, slot in slots.items() if self.texts.scale[slot] == 0.0]
        return sorted(none, key=lambda name: -self.tables.taken[slots[name]])

    def put_text(self, one: TextVector) -> None:
        """What an item's text, or a query, says. Of items that are not held nothing is kept."""
        query = one.name.startswith(QUERY)
        if query:
            self._take_query(one.name)
        slot = self.items.get(one.name)
        if slot >= 0 and self.texts.vector.shape[1]:
            put_text(
                self.tables, self.texts, self.items.rows, slot, one.values, not query,
                self._products,
            )  # fmt: skip

    def withdraw(self, item_id: str) -> None:
        self._catalogue.pop(item_id, None)
        self._limit(item_id, True, 0)

    def _limit(self, item_id: str, hidden: bool, available_from: int) -> None:
        """Remember when the item may be shown; longer than the item itself is remembered."""
        self._limited.pop(item_id, None)
        if hidden or available_from:
            self._limited[item_id] = hidden, available_from
            if len(self._limited) > self.config.items:
                self._limited.popitem(last=False)
        self._apply_limit(item_id, self.items.get(item_id))

    def _apply_limit(self, item_id: str, slot: int) -> None:
        if slot >= 0:
            hidden, available_from = self._limited.get(item_id, (False, 0))
            self.tables.hidden[slot], self.tables.available[slot] = hidden, available_from

    def title(self, item_id: str) -> str:
        """What to call an item, or a query, in a reason: its title, or its id."""
        if item_id.startswith(QUERY):
            words = item_id.removeprefix(QUERY)
            return f"“{words}”" if " " in words or len(words) != HASHED else "what you described"
        item = self._catalogue.get(item_id)
        return item.title if item and item.title else item_id

    def category(self, item_id: str) -> str:
        item = self._catalogue.get(item_id)
        return item.category if item else ""

    def wording(self, item_id: str) -> str:
        """What is said of the item."""
        item = self._catalogue.get(item_id)
        return f"{item.title} {item.brand} {item.category} {item.description}" if item else ""

    def range_of(self, item_id: str, other_id: str) -> str:
        """The category, or else the brand, that two items have in common."""
        item, other = self._catalogue.get(item_id), self._catalogue.get(other_id)
        if item is None or other is None:
            return ""
        if item.category and item.category == other.category:
            return item.category
        return item.brand if item.brand == other.brand else ""

    # -- state -------------------------------------------------------------------------------

    def state(self) -> State:
        """Everything that is remembered; `restore` takes it back."""
        items, users = self.items.rows, self.users.rows
        return {
            "items": self.items.state(),
            "users": self.users.state(),
            "tables": tb.state_of(self.tables, items, users),
            "sequences": sequences_state(self.sequences, items, users),
            "catalogue": msgspec.msgpack.encode(list(self._catalogue.values())),
            "limited": [[name, *limit] for name, limit in self._limited.items()],
            "texts": texts_state(self.texts, items),
            "text_model": self._text_model,
            "queries": list(self._queries),
            "categories": self._categories,
            "brands": self._brands,
        }

    def restore(self, state: State) -> bool:
        """Be as when `state` was taken; False when the encoder's part does not fit this one's
        shape: it begins anew.

        Bounds may be others by now: whoever is too many gives way when room is made.
        """
        self.items.restore(state["items"])
        self.users.restore(state["users"])
        self.tables = tb.restored(state["tables"])
        items, users = len(self.tables.taken), len(self.tables.user_n)
        width = self.sequences.vector.shape[1]
        text = self.texts.vector.shape[1]
        self.scratch = new_scratch(items, users, self.config.history, width, text)
        catalogue = msgspec.msgpack.decode(state["catalogue"], type=list[Item])
        self._catalogue = {item.item_id: item for item in catalogue}
        self._limited = OrderedDict((name, (gone, start)) for name, gone, start in state["limited"])
        same = state.get("text_model") == self._text_model
        self.texts = restored(state["texts"] if same else None, text, items)
        self._queries = OrderedDict.fromkeys(state.get("queries", ()))
        self._products = np.zeros(items, np.int32)
        self._categories = dict(state.get("categories", {}))
        self._brands = dict(state.get("brands", {}))
        for item in () if same else catalogue:
            self._describe(self.items.get(item.item_id), item)
        rows = min(self._states, users)
        found = sequences_restored(self.sequences, state["sequences"], rows)
        self.sequences = found or resized(self.sequences, items, users, rows, self.pause)
        return found is not None

    # -- figures -----------------------------------------------------------------------------

    def coverage(self) -> float:
        """Share of the known items that were in a slate."""
        known = int(self.tables.clock[ITEMS_KNOWN])
        return float(np.count_nonzero(self.tables.shown)) / known if known else 0.0
