"""The words of the catalogue behind /search, when something goes wrong with them."""

from __future__ import annotations

import time
from collections.abc import Iterable

import pytest

from encoders.lexicon import Lexicon
from online.events import Item
from streams.desk import Desk


def item(item_id: str, title: str) -> Item:
    return Item(item_id=item_id, title=title)


def test_items_whose_words_could_not_be_taken_are_taken_with_the_next_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    taken: list[str] = []

    class Full(Lexicon):
        faults = 1

        def change(self, texts: Iterable[tuple[str, str]], gone: Iterable[str]) -> None:
            if self.faults:
                self.faults -= 1
                raise OSError("no space left on device")
            taken.extend(item_id for item_id, _ in texts)

    monkeypatch.setattr("streams.desk.Lexicon", Full)
    desk = Desk()
    desk.change([item("mug", "Red mug"), item("cup", "Tea cup")], [])
    deadline = time.monotonic() + 10
    while not desk._indexed and time.monotonic() < deadline:
        time.sleep(0.01)
    assert taken == []
    desk.change([item("tin", "Cake tin"), item("cup", "Tea cup, blue")], [])
    while len(taken) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert sorted(taken) == ["cup", "mug", "tin"]
    desk.close()
