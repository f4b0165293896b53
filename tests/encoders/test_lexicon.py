"""Words: what is found literally, and how much of a query it is."""

from __future__ import annotations

import pytest

from encoders.lexicon import MISSPELT, Lexicon

TITLES = {
    "85123A": "WHITE HANGING HEART T-LIGHT HOLDER",
    "22423": "REGENCY CAKESTAND 3 TIER",
    "cn": "红茶杯 礼物",
    "fr": "Théière en céramique",
}


@pytest.fixture
def lexicon() -> Lexicon:
    words = Lexicon()
    words.put(TITLES.items())
    return words


@pytest.mark.parametrize(
    ("query", "item"),
    [("hanging hearts", "85123A"), ("85123a", "85123A"), ("cakestand", "22423"),
     ("红茶", "cn"), ("礼物", "cn"), ("杯", "cn"), ("theiere", "fr"), ("THÉIÈRES", "fr")],
)  # fmt: skip
def test_it_finds(lexicon: Lexicon, query: str, item: str) -> None:
    assert list(lexicon.search(query)) == [item]
    assert lexicon.search(query)[item] == pytest.approx(1.0)


def test_misspelt_words_count_for_less(lexicon: Lexicon) -> None:
    assert lexicon.search("hangign") == {"85123A": pytest.approx(MISSPELT)}
    assert lexicon.search("22432") == {}  # a code is right or wrong
    assert lexicon.search("hat") == {}  # too short to be a misspelt heart


def test_part_of_a_query_is_a_share_of_it(lexicon: Lexicon) -> None:
    found = lexicon.search("white cakestand regency")
    assert list(found) == ["22423", "85123A"]
    assert found["22423"] + found["85123A"] == pytest.approx(1.0)


def test_what_changes_or_goes_is_found_so(lexicon: Lexicon) -> None:
    lexicon.put([("22423", "GLASS BOWL")])
    assert lexicon.search("cakestand") == {} and list(lexicon.search("bowl")) == ["22423"]
    lexicon.drop(["22423"])
    assert lexicon.search("bowl") == {} and len(lexicon) == len(TITLES) - 1


@pytest.mark.parametrize("query", ["", "   ", "!?*()", '"unbalanced', "a" * 100_000, "\x00", "🫖"])
def test_odd_queries_find_nothing(lexicon: Lexicon, query: str) -> None:
    assert lexicon.search(query) == {}
