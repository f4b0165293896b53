"""A Chinese shop, with the multilingual model: what is found in Chinese, and in English."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from encoders.lexicon import Lexicon
from encoders.text import TextEncoder
from encoders.text_config import MULTILINGUAL, TextConfig
from encoders.wording import plain
from online.core import Recommender, RecommenderConfig
from online.events import Item
from online.memory import MemoryConfig
from online.step import Recommendation
from online.texts import TextConfig as CoreTextConfig
from streams.texts import TextReader, text_of

SHOP = Path(__file__).with_name("chinese_shop")
SMALL = MemoryConfig(users=10_000, items=1_000, pages=20_000, pairs=100_000, history=64)


def rows(name: str) -> list[dict[str, str]]:
    with (SHOP / f"{name}.tsv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


class Shop:
    """300 items of 20 categories; nobody was here yet."""

    def __init__(self) -> None:
        encoder = TextEncoder(TextConfig(MULTILINGUAL, device="cpu"))
        self._reader = TextReader(encoder.encode)
        text = CoreTextConfig(encoder.width, encoder.name)
        self._core = Recommender(RecommenderConfig(memory=SMALL, text=text))
        items = [Item(**row) for row in rows("items")]
        self._core.announce(items)
        self._core.put_texts(self._reader.of_items(items))
        self._words = Lexicon()
        self._words.put((item.item_id, text_of(item)) for item in items)
        self.titles = {item.item_id: item.title for item in items}

    def search(self, query: str) -> list[Recommendation]:
        [vector] = self._reader.of_queries([query])
        lexical = self._words.search(query)
        return list(self._core.search(vector, plain(query), lexical, "", 1 << 42, 10))

    def recall(self, how: str) -> float:
        """Of what answers a need, the share among the ten found; mean over needs."""
        found = []
        for need in rows("needs"):
            right = set(need["item_ids"].split())
            assert right <= set(self.titles)
            found.append(len(right & {one.item_id for one in self.search(need[how])}) / len(right))
        return float(np.mean(found))


@pytest.fixture(scope="module")
def shop() -> Iterator[Shop]:
    yield Shop()


def test_needs_are_met_in_chinese_and_in_english(shop: Shop) -> None:
    """Sixty needs, each said with words of the title, with others, and in English."""
    recall = {how: shop.recall(how) for how in ("words", "other_words", "english")}
    assert (recall["words"] + recall["other_words"]) / 2 >= 0.9, recall
    assert min(recall["other_words"], recall["english"]) >= 0.8, recall


def test_a_reason_names_the_characters_that_both_have(shop: Shop) -> None:
    best = shop.search("红色的茶壶")[0]
    assert shop.titles[best.item_id].startswith("红色陶瓷茶壶")
    assert best.reason == "contains 红色, 茶壶" and best.source == "words"
    assert shop.search("teapot")[0].reason == "in meaning near “teapot”"


def test_one_character_is_a_query(shop: Shop) -> None:
    tea = [title for title in shop.titles.values() if "茶" in title]
    found = [shop.titles[one.item_id] for one in shop.search("茶")]
    assert len(tea) >= 3 and set(tea) <= set(found)
