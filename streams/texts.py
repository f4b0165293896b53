"""From texts to vectors: what of an item is read, and that nothing is read twice."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from encoders.wording import item_text, plain
from online.events import Event, Item
from online.texts import TextVector, query_name

HELD = 20_000  # vectors that are held beside what keeps them: 1.5 KB each
AT_ONCE = 64  # texts between two words about progress

Encode = Callable[[Sequence[str]], np.ndarray]


def text_of(item: Item) -> str:
    """All that is said of an item, as one text."""
    return item_text(item.title, item.brand, item.category, item.tags, item.description)


def query_text(query: str) -> str:
    """What is read of a query: the same for all ways to type it."""
    return plain(query.casefold())


def text_key(text: str) -> str:
    """The name of a text's content: 32 hexadecimal digits."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


class TextReader:
    """Vectors of texts by one model; those that `kept` has, or that were asked for lately, are not
    made again."""

    def __init__(
        self, encode: Encode, kept: Mapping[str, bytes] | None = None, keeps: bool = True,
        beside: TextReader | None = None,
    ) -> None:  # fmt: skip
        """kept: by `text_key`, vectors as bytes (f4); keeps: collect in `made` what is new; beside:
        another one, whose vectors are not made again but count as made here."""
        self._keeps = keeps
        self._beside = beside
        self._encode = encode
        self._kept = kept or {}
        self._held: OrderedDict[str, bytes] = OrderedDict()
        self._lock = threading.Lock()
        self.made: dict[str, bytes] = {}  # that `kept` did not have; take them away

    def vectors(self, texts: Sequence[str]) -> list[bytes]:
        """One of each text, b"" of an empty one."""
        keys = [text_key(text) if text else "" for text in texts]
        found = {key: value for key in keys if key and (value := self._known(key)) is not None}
        new = {k: t for k, t in zip(keys, texts, strict=True) if k and k not in found}
        if new:
            fresh = self._fresh(new)
            found |= fresh
            if self._keeps:
                self.made |= fresh
        for key, value in found.items():
            self._hold(key, value)
        return [found.get(key, b"") for key in keys]

    def _fresh(self, new: dict[str, str]) -> dict[str, bytes]:
        """Vectors of these texts, by key, which we do not have."""
        found = self._beside.held(new) if self._beside is not None else {}
        rest = {key: text for key, text in new.items() if key not in found}
        if rest:
            made = self._encode(list(rest.values())).astype(np.float32)
            found |= {key: row.tobytes() for key, row in zip(rest, made, strict=True)}
        return found

    def held(self, keys: Iterable[str]) -> dict[str, bytes]:
        """Of these, what was asked for lately."""
        with self._lock:
            return {key: self._held[key] for key in keys if key in self._held}

    def of_items(
        self, items: Iterable[Item], progress: Callable[[int], None] = lambda count: None
    ) -> list[TextVector]:
        """What is said of items that say anything."""
        texts = {item.item_id: text_of(item) for item in items}
        names = [name for name, text in texts.items() if text]
        found = []
        for at in range(0, len(names), AT_ONCE):
            some = names[at : at + AT_ONCE]
            values = self.vectors([texts[name] for name in some])
            found += [TextVector(name, value) for name, value in zip(some, values, strict=True)]
            progress(len(some))
        return found

    def of_queries(self, queries: Iterable[str]) -> list[TextVector]:
        """What queries say, each once."""
        texts = {query_name(query): query_text(query) for query in queries}
        values = self.vectors(list(texts.values()))
        return [TextVector(name, value) for name, value in zip(texts, values, strict=True) if value]

    def keep(self, vectors: Mapping[str, bytes]) -> None:
        """These, by `text_key`, were made before: do not make them again for a while."""
        for key, value in vectors.items():
            self._hold(key, value)

    def lacking(self, texts: Iterable[str]) -> set[str]:
        """Keys of those texts that would have to be read."""
        keys = {text_key(text) for text in texts if text}
        return {key for key in keys if self._known(key) is None}

    def _known(self, key: str) -> bytes | None:
        with self._lock:
            if key in self._held:
                self._held.move_to_end(key)
                return self._held[key]
        return self._kept.get(key)

    def _hold(self, key: str, value: bytes) -> None:
        with self._lock:
            self._held[key] = value
            if len(self._held) > HELD:
                self._held.popitem(last=False)


def queries_of(events: Iterable[Event]) -> list[str]:
    """What is searched for in these events."""
    return [event.query for event in events if event.type == "search" and event.query]
