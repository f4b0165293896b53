"""What texts say in the core: cold items, queries, search, items like one; and that it is kept."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from online.core import Recommender, RecommenderConfig
from online.events import Delivery, Event, Item
from online.features import TEXT_FEATURES, TEXT_FIRST, TEXT_NAMES
from online.likeness import _held
from online.memory import Memory, MemoryConfig
from online.newcomers import _lift
from online.similarity import WAYS
from online.state import flattened
from online.step import PastEvent
from online.texts import (
    ALIKE,
    QUERY,
    ROOM,
    TextConfig,
    TextVector,
    most_alike,
    quantised,
    query_name,
)

WIDTH = 12
SMALL = MemoryConfig(users=10_000, items=1_000, pages=20_000, pairs=100_000, history=64)
CONFIG = RecommenderConfig(memory=SMALL, text=TextConfig(WIDTH, "tests"))


def vector(*parts: int, of: float = 1.0) -> bytes:
    """A direction that is the sum of some axes, and a little of its own."""
    found = np.full(WIDTH, 0.01, np.float32)
    for part in parts:
        found[part] += of
    return (found / np.linalg.norm(found)).astype(np.float32).tobytes()


class Shop:
    """A core that is given events one at a time."""

    def __init__(self, config: RecommenderConfig = CONFIG) -> None:
        self.core = Recommender(config)
        self.n = 0

    def announce(self, item_id: str, *parts: int, **fields: object) -> None:
        self.core.announce([Item(item_id=item_id, title=f"title {item_id}", **fields)])
        self.core.put_texts([TextVector(item_id, vector(*parts))])

    def event(self, kind: str, user: str, item: str = "", query: str | None = None) -> list[str]:
        self.n += 1
        event = Event(
            event_id=str(self.n), type=kind, user_id=user, item_id=item, query=query, ts=self.n
        )
        step = self.core.step([Delivery(event, "events", 0, self.n, self.n)], self.n)
        assert not step.rejects
        return [r.item_id for r in step.slates[0].recommendations] if step.slates else []

    def search(self, user: str, query: str, *parts: int) -> list[str]:
        self.core.put_texts([TextVector(query_name(query), vector(*parts))])
        return self.event("search", user, query=query)


@pytest.fixture
def shop() -> Iterator[Shop]:
    """Twenty items of axes 0 to 3, and users who say which they want, and take two of it."""
    made = Shop()
    for n in range(20):
        made.announce(f"old-{n}", n % 4)
    rng = np.random.default_rng(3)
    for _ in range(200):
        user, axis = f"user-{rng.integers(9)}", int(rng.integers(4))
        made.search(user, f"I want {axis}", axis)
        for _ in range(2):
            made.event("click", user, f"old-{4 * rng.integers(5) + axis}")
    yield made


def test_a_vector_keeps_its_direction() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 384)).astype(np.float32)
    a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
    (wa, sa), (wb, sb) = quantised(a), quantised(b)
    cosine = float(wa.astype(int) @ wb.astype(int)) * sa * sb
    assert abs(cosine - a @ b) < 0.005
    assert quantised(np.zeros(4, np.float32))[1] == 0.0


def test_nearest_items_are_those_that_a_full_search_finds() -> None:
    """However items come, change and go."""
    rng = np.random.default_rng(1)
    memory = Memory(MemoryConfig(items=1_000, users=10_000, pages=20_000, pairs=10_000, history=64),
                    None, TextConfig(WIDTH))  # fmt: skip
    for _ in range(400):
        name = f"{rng.integers(150)}"
        if rng.random() < 0.1 and len(memory.items) > 50:
            memory.expire_item()
        memory.announce(Item(item_id=name))
        memory.put_text(TextVector(name, rng.normal(size=WIDTH).astype(np.float32).tobytes()))
    x, t = memory.texts, memory.tables
    names = memory.items.ids_held()
    slots = [memory.items.get(name) for name in names]
    some = np.empty(ALIKE + 1, np.int32)
    values = np.empty(ALIKE + 1, np.float32)
    missing = 0
    for slot in slots:
        n = most_alike(t, x, memory.items.rows, x.vector[slot], x.scale[slot],
                       np.empty(memory.items.rows, np.int32), some, values)  # fmt: skip
        best = [s for s in some[:n].tolist() if s != slot][:5]
        held = [int(key) & 0xFFFFFF for key in x.near[slot] if t.key[key & 0xFFFFFF] == key]
        missing += len(set(best) - set(held))
    assert (x.least == np.where(x.near[:, -1] < 0, ROOM, x.alike[:, -1])).all()
    # a place that an item left is filled by those that come later, not by those that were there
    assert missing <= 0.02 * 5 * len(slots)


@settings(deadline=None)  # the first call compiles
@given(st.lists(st.tuples(st.integers(0, 9), st.floats(-1, 1, width=32)), max_size=60))
def test_the_best_few_are_those_that_sorting_would_put_first(
    offered: list[tuple[int, float]],
) -> None:
    best, value, n = np.full(4, -1, np.int32), np.zeros(4, np.float32), 0
    highest: dict[int, float] = {}
    for item, much in offered:
        n = _held(item, np.float32(much), best, value, n, 4)
        highest[item] = max(much, highest.get(item, -2.0))
    expected = sorted(highest.values(), reverse=True)[:4]
    assert value[:n].tolist() == expected
    assert [highest[item] for item in best[:n].tolist()] == expected
    assert len(set(best[:n].tolist())) == n


def test_a_new_item_is_recommended_to_those_who_had_what_resembles_it(shop: Shop) -> None:
    shop.announce("new", 1, price=3.0)
    slate = shop.core.step(
        [Delivery(Event(event_id="x", type="click", user_id="ann", item_id="old-1", ts=900),
                  "events", 0, 900, 900)], 900,
    ).slates[0]  # fmt: skip
    [found] = [r for r in slate.recommendations if r.item_id == "new"]
    assert found.reason == "similar to title old-1, which you clicked (title)"
    assert found.source == "text"


def test_nobody_is_shown_a_new_item_that_resembles_nothing(shop: Shop) -> None:
    shop.announce("strange", 9)
    for n in range(30):
        shop.announce(f"fitting-{n}", 1)
    assert "strange" not in shop.event("click", "ann", "old-1")


def test_without_stock_or_withdrawn_it_is_gone_at_once(shop: Shop) -> None:
    shop.announce("new", 1)
    assert "new" in shop.event("click", "ann", "old-1")
    shop.core.announce([Item(item_id="new", title="title new", stock=0)])
    assert "new" not in shop.event("click", "ann", "old-5")
    shop.core.announce([Item(item_id="new", title="title new", stock=3)])
    assert "new" in shop.event("click", "ann", "old-9")
    shop.core.withdraw(["new"])
    assert "new" not in shop.event("click", "ann", "old-13")
    query = TextVector(query_name("q"), vector(1))
    assert "new" not in [r.item_id for r in shop.core.search(query, "q", {"new": 1.0}, "ann", 900)]


def test_one_place_in_ten_is_for_a_newcomer(shop: Shop) -> None:
    for n in range(5):
        shop.announce(f"new-{n}", 2)
    for _ in range(20):
        slate = shop.event("click", "ann", "old-2")
    assert len([item for item in slate if item.startswith("new")]) >= 1


def test_place_ten_goes_to_the_best_newcomer_unless_one_is_there() -> None:
    score = np.arange(20, 0, -1).astype(np.float32)
    new, suits = np.zeros(20, bool), np.arange(20, dtype=np.float32)
    new[[14, 17]] = True
    lifted = score.copy()
    _lift(lifted, suits, new, np.array([0, 20]), 10, 0.0)
    assert np.argsort(-lifted, kind="stable")[9] == 17 and (lifted != score).sum() == 1
    new[3] = True
    same = score.copy()
    _lift(same, suits, new, np.array([0, 20]), 10, 0.0)
    assert (same == score).all()


def test_a_query_moves_what_is_recommended_and_is_not_recommended(shop: Shop) -> None:
    shop.event("click", "bob", "old-0")
    before = shop.core.recommend("bob", shop.n)
    slate = shop.search("bob", "something of three", 3)
    assert [r.item_id for r in before][:5] != slate[:5]
    of_three = [int(item.removeprefix("old-")) % 4 == 3 for item in slate]
    assert of_three[0] and sum(of_three[:5]) > sum(
        int(r.item_id.removeprefix("old-")) % 4 == 3 for r in before[:5]
    )
    assert not [item for item in slate if item.startswith(QUERY)]
    shop.event("click", "bob", "old-3")
    for _ in range(3):
        shop.search("eve", "something of three", 3)
    reasons = [r.reason for r in shop.core.recommend("eve", shop.n)]
    assert any("“something of three”" in reason for reason in reasons), reasons


def test_who_only_typed_a_sentence_gets_what_fits_it(shop: Shop) -> None:
    slate = shop.search("nobody yet", "of two", 2)
    assert int(slate[0].removeprefix("old-")) % 4 == 2


def test_a_user_who_was_let_go_comes_back_with_the_queries(shop: Shop) -> None:
    shop.event("click", "bob", "old-0")
    shop.search("bob", "of three", 3)
    held = shop.core.recommend("bob", shop.n)
    past = [
        PastEvent(str(shop.n - 1), "click", "old-0", shop.n - 1),
        PastEvent(str(shop.n), "search", query_name("of three"), shop.n),
    ]
    shop.core.release(["bob"])
    shop.core.restore({"bob": past})
    assert [r.item_id for r in shop.core.recommend("bob", shop.n)] == [r.item_id for r in held]


def test_search_finds_words_and_meaning_and_heeds_the_shopper(shop: Shop) -> None:
    shop.announce("exact", 8)
    query = TextVector(query_name("q"), vector(2))
    found = shop.core.search(query, "title exact", {"exact": 1.0}, "", shop.n)
    assert found[0].item_id == "exact" and found[0].reason == "contains title, exact"
    assert {int(r.item_id.removeprefix("old-")) % 4 for r in found[1:5]} == {2}
    for _ in range(8):
        shop.event("click", "ann", "old-6")
        shop.event("click", "ann", "old-2")
    mine = [r.item_id for r in shop.core.search(query, "", {}, "ann", shop.n)]
    anybody = [r.item_id for r in shop.core.search(query, "", {}, "ann", shop.n, personal=False)]
    assert mine != anybody and set(mine[:5]) == set(anybody[:5])


def all_of(core: Recommender) -> dict[str, bytes]:
    arrays, plain = flattened(core.state())
    return {name: a.tobytes() for name, a in arrays.items()} | {"plain": repr(plain).encode()}


def test_searching_changes_nothing(shop: Shop) -> None:
    before = all_of(shop.core)
    shop.core.search(TextVector(query_name("q"), vector(2)), "q", {"old-1": 1.0}, "user-1", shop.n)
    for by in WAYS:
        assert shop.core.similar("old-1", by, 1 << 40)
    assert all_of(shop.core) == before


def test_who_asks_in_the_middle_of_a_batch_changes_nothing() -> None:
    """And is answered: between lists and between slates nothing is half done."""
    query, answers = TextVector(query_name("q"), vector(2)), []

    def ask(core: Recommender) -> None:
        answers.append(core.search(query, "q", {"old-1": 1.0}, "user-1", 500))
        answers.append(core.similar("old-1", "both", 500))

    steps, states = [], []
    for asks in (False, True):
        shop = Shop(RecommenderConfig(memory=MemoryConfig(), text=CONFIG.text))
        for n in range(20):
            shop.announce(f"old-{n}", n % 4)
        if asks:
            shop.core.pause = partial(ask, shop.core)
        rng, some = np.random.default_rng(5), []
        for n in range(1, 2_701):  # enough of them that tables grow
            many = n >= 300
            event = Event(event_id=str(n), type="click", ts=n,
                          user_id=f"user-{rng.integers(8_000 if many else 60)}",
                          item_id=f"old-{rng.integers(4_000 if many else 20)}")  # fmt: skip
            some.append(Delivery(event, "events", 0, n, n))
        steps.append([shop.core.step(some[at : at + 100], 1_000) for at in range(0, 2_700, 100)])
        states.append(all_of(shop.core))
        t, x = shop.core._memory.tables, shop.core._memory.texts
        assert min(len(t.user_n), len(x.near), len(t.page_older) / 2) > 1_024
    assert len(answers) > 300 and all(answers)
    assert steps[0] == steps[1]
    assert states[0] == states[1]


def test_items_like_one_by_text_and_by_behaviour(shop: Shop) -> None:
    for _ in range(30):
        shop.event("click", "pair", "old-0")
        shop.event("click", "pair", "old-7")
    text = [r.item_id for r in shop.core.similar("old-0", "text", 1 << 40, 4)]
    assert {int(item.removeprefix("old-")) % 4 for item in text} == {0}
    assert shop.core.similar("old-0", "behaviour", 1 << 40, 1)[0].item_id == "old-7"
    both = [r.item_id for r in shop.core.similar("old-0", "both", 1 << 40, 8)]
    assert set(both) & set(text) and "old-7" in both
    assert shop.core.similar("who", "both", 1 << 40) == ()
    with pytest.raises(ValueError, match="text, behaviour, both"):
        shop.core.similar("old-0", "magic", 1 << 40)


def test_what_was_read_is_kept_unless_another_model_reads(shop: Shop) -> None:
    shop.search("bob", "of three", 3)
    state = shop.core.state()
    again = Recommender(CONFIG)
    assert again.resume(state, "")
    assert again.recommend("bob", shop.n) == shop.core.recommend("bob", shop.n)
    assert again.without_text() == []
    other = Recommender(RecommenderConfig(memory=SMALL, text=TextConfig(WIDTH, "another")))
    other.resume(state, "")
    assert len(other.without_text()) == 20


def test_new_texts_are_linked_after_a_restart_as_they_would_have_been(shop: Shop) -> None:
    for n in range(ALIKE + 3):  # of one axis: their lists of the most alike are full
        shop.announce(f"full-{n}", 5)
    again = Recommender(CONFIG)
    assert again.resume(shop.core.state(), "")
    for core in (shop.core, again):
        rng = np.random.default_rng(8)
        for n in range(60):
            core.announce([Item(item_id=f"later-{n}", title="t")])
            parts = rng.integers(WIDTH, size=2)
            core.put_texts([TextVector(f"later-{n}", vector(*parts.tolist()))])
    ours, theirs = shop.core._memory.texts, again._memory.texts
    rows = shop.core._memory.items.rows
    assert (ours.least[:rows] > ROOM).sum() > 20
    for name in ("near", "alike", "least"):
        assert np.array_equal(getattr(ours, name)[:rows], getattr(theirs, name)[:rows]), name


@pytest.mark.parametrize("values", [b"", np.zeros(WIDTH, np.float32).tobytes()])
def test_an_empty_text_says_nothing(shop: Shop, values: bytes) -> None:
    shop.core.put_texts([TextVector("old-1", values), TextVector("nobody", values)])
    assert shop.core.without_text() == ["old-1"]
    assert shop.core.similar("old-1", "text", 1 << 40) == ()
    assert shop.event("click", "ann", "old-1")
    found = shop.core.search(TextVector(query_name("q"), values), "q", {"old-2": 0.5}, "", 1)
    assert [r.item_id for r in found] == ["old-2"]


def test_what_a_release_without_texts_had_learned_is_not_lost() -> None:
    """Its rankers had fewer features, its tables a column less."""
    shop = Shop()  # of no item is anything said
    rng = np.random.default_rng(3)
    for _ in range(320):
        shop.event("click", f"user-{rng.integers(9)}", f"old-{rng.integers(20)}")
    expected = shop.core.recommend("user-1", shop.n)
    again = Recommender(CONFIG)
    assert again.resume(_older(shop.core.state()), "")
    found = again.recommend("user-1", shop.n)
    assert [r.item_id for r in found] == [r.item_id for r in expected]
    again.announce([Item(item_id="old-1", title="t")])
    again.put_texts([TextVector("old-1", vector(1))])
    event = Event(event_id="x", type="click", user_id="user-1", item_id="old-1", ts=shop.n)
    assert again.step([Delivery(event, "events", 0, 999, 999)], 999).slates


def _older(state: dict[str, Any]) -> dict[str, Any]:
    """A state as the release before texts wrote it."""
    text = range(TEXT_FIRST, TEXT_FIRST + TEXT_FEATURES)
    memory, contest, block = dict(state["memory"]), dict(state["contest"]), dict(state["block"])
    for name in ("texts", "text_model", "categories", "brands"):
        del memory[name]
    memory["tables"] = {k: v for k, v in memory["tables"].items() if k != "first_taken"}
    del contest["newcomers"]
    scaler = dict(contest["scaler"])
    for name in ("scale", "offset"):
        scaler[name] = np.delete(scaler[name], text)
    scaler["statistics"] = {
        kind: {n: v for n, v in values.items() if n not in TEXT_NAMES}
        for kind, values in scaler["statistics"].items()
    }
    rankers = {name: dict(kept) for name, kept in contest["rankers"].items()}
    for kept in rankers.values():
        if "parameters" in kept:
            for name in ("parameters", "average", "mean", "square"):
                w, b, v, u = kept[name]
                kept[name] = [np.delete(w, text, axis=0), b, v, np.delete(u, text)]
        else:
            for name in ("weights", "g2"):
                kept[name] = {n: v for n, v in kept[name].items() if n not in TEXT_NAMES}
    contest |= {"scaler": scaler, "rankers": rankers, "x": np.delete(contest["x"], text, axis=1)}
    block["x"] = np.delete(block["x"], text, axis=1)
    return {**state, "memory": memory, "contest": contest, "block": block}
