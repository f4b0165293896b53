"""Texts to vectors, live: what the warehouse has is not made again, and what is made is kept."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from infra.reading import item_texts, text_vectors
from infra.warehouse_types import Warehouse
from online.events import Item
from online.texts import TextVector
from streams.texts import TextReader, query_text, text_key, text_of


class Reads(Protocol):
    """A language model: `streams.text_process.TextProcess`."""

    name: str
    width: int

    def encode(self, texts: Sequence[str]) -> np.ndarray: ...
    def encode_now(self, texts: Sequence[str]) -> np.ndarray: ...


class Understood(NamedTuple):
    """Vectors for the core, and what the warehouse must be told."""

    vectors: list[TextVector]
    made: dict[str, bytes]  # by key: vectors that the warehouse does not have
    keys: dict[str, str]  # by item: the key of its text
    model: str


class TextService:
    """One caller at a time for each method but `look_at`, which takes several."""

    def __init__(self, model: Reads, warehouse: Warehouse) -> None:
        self.model = model.name
        self._warehouse = warehouse
        self._asked = TextReader(model.encode_now, keeps=False)
        # what is searched for is asked first, and sent as an event a moment later
        self._queries = TextReader(model.encode_now, beside=self._asked)
        self._items = TextReader(model.encode)

    def look_at(self, queries: Iterable[str]) -> list[TextVector]:
        """What queries say that nobody is told of: nothing of it is kept. Raises TextLost."""
        return self._asked.of_queries(queries)

    def look_up(self, queries: Iterable[str]) -> None:
        """Bring what the warehouse has of queries, so that it is not made again, a little other.

        Raises WarehouseError: try again.
        """
        lacking = self._queries.lacking(query_text(query) for query in queries)
        if lacking:
            self._queries.keep(text_vectors(self._warehouse.query, self.model, lacking))

    def of_queries(self, queries: Iterable[str]) -> Understood:
        """Raises TextLost."""
        vectors = self._queries.of_queries(queries)
        made, self._queries.made = self._queries.made, {}
        return Understood(vectors, made, {}, self.model)

    def of_items(self, items: Sequence[Item]) -> Understood:
        """Raises TextLost, WarehouseError (try again)."""
        keys = {i.item_id: text_key(text) for i in items if (text := text_of(i))}
        kept = text_vectors(self._warehouse.query, self.model, set(keys.values()))
        self._items.keep(kept)
        vectors = self._items.of_items(items)
        made, self._items.made = self._items.made, {}
        said = {vector.name for vector in vectors}
        silent = [TextVector(i.item_id, b"") for i in items if i.item_id not in said]
        keys |= {silence.name: "" for silence in silent}
        return Understood([*vectors, *silent], made, keys, self.model)

    def unread(self, items: Sequence[Item]) -> list[Item]:
        """Those whose texts have changed since they were read by this model, or never were.

        Raises WarehouseError.
        """
        known = item_texts(self._warehouse.query, self.model)
        texts = ((item, text_of(item)) for item in items)
        keys = ((item, text_key(text) if text else "") for item, text in texts)
        return [item for item, key in keys if known.get(item.item_id) != key]
