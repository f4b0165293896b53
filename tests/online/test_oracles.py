"""Incremental equals batch; compiled equals plain; our metric equals a known library's."""

from __future__ import annotations

import collections

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

from online.candidates import BUCKETS, best
from online.contest import Contest, ContestConfig, ndcg
from online.core import Recommender
from online.engine import ROWS
from online.events import Delivery, Event
from online.features import FEATURES, NAMES, SOURCE, SOURCES, UNKNOWN, source_of
from online.listwise import gradient, ranks, softmax
from online.observe import expire, observe
from online.pairs import row_size
from online.policy import choose
from online.ranker import NeuralRanker, RankerConfig
from online.tables import (
    DIRECT,
    FORWARD_LONG,
    SLOT_MASK,
    TIME_HALF_LIVES,
    new_tables,
)


def test_ndcg_equals_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        scores = rng.normal(size=(1, 40))
        relevant = np.zeros((1, 40))
        relevant[0, rng.integers(40)] = 1
        rank = 1 + (scores[0] > scores[0, relevant[0].argmax()]).sum()
        assert ndcg(np.array([rank]))[0] == pytest.approx(ndcg_score(relevant, scores, k=10))


def test_ranks_count_ties_by_half_and_unproposed_targets_below_all() -> None:
    scores = np.array([3, 2, 2, 1, 9, 9], np.float32)
    start, proposed = np.array([0, 4, 6]), np.array([4, 1])
    out = np.zeros(2)
    ranks(scores, start, proposed, np.array([1, 5]), np.array([10, 7]), out)
    assert out.tolist() == [2.5, 1 + 1 + 3.0]
    ranks(scores, start, proposed, np.array([-1, 4]), np.array([10, 7]), out)
    assert out.tolist() == [np.inf, 1.0]


@given(st.lists(st.floats(-1, 1e6, width=32), min_size=1, max_size=400), st.integers(0, 400))
@example([0.0, -0.0], 1)  # whichever of them NumPy takes for the larger
@example([-0.0, 0.0], 1)
@settings(max_examples=100, deadline=None)
def test_the_best_are_the_largest_within_a_bucket(values: list[float], room: int) -> None:
    rates = np.array(values, np.float32)
    out = np.full(len(rates), -1, np.int32)
    found = best(rates, len(rates), rates.max(), room, out)
    allowed = np.flatnonzero(rates >= 0)
    assert found == min(room, len(allowed))
    taken, left = rates[out[:found]], rates[np.setdiff1d(allowed, out[:found])]
    if found and len(left):  # nothing left out is larger by more than a bucket's width
        smallest = rates.max() / 2 ** (BUCKETS / 32 - 1)
        assert left.max() <= max(taken.min() * 33 / 32, smallest)


@given(st.integers(0, 2**32 - 1), st.integers(1, 12))
@settings(max_examples=50, deadline=None)
def test_slates_are_the_best_that_may_be_shown(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    start = np.cumsum([0, *rng.integers(0, 30, size=4)])
    scores = rng.integers(0, 8, size=start[-1]).astype(np.float32)
    items = rng.permutation(start[-1]).astype(np.int32)
    showable = rng.random(start[-1]) < 0.7
    out = np.empty((4, k), np.int64)
    choose(scores, start, items, showable, out)
    for e in range(4):
        rows = [r for r in range(start[e], start[e + 1]) if showable[r]]
        rows.sort(key=lambda r: (-scores[r], items[r]))
        assert out[e].tolist() == (rows + [-1] * k)[:k]


def test_the_gradient_is_the_slope_of_the_weighted_softmax_loss() -> None:
    rng = np.random.default_rng(1)
    start, place = np.array([0, 5, 9]), np.array([2, 8])
    weight = np.array([1.0, 0.25], np.float32)
    s = rng.normal(size=9)

    def loss(x: np.ndarray) -> float:
        total = 0.0
        for e in range(2):
            part = x[start[e] : start[e + 1]]
            total -= weight[e] * (x[place[e]] - np.log(np.exp(part).sum())) / 2
        return float(total)

    p, slope = np.zeros(9, np.float32), np.zeros(9, np.float32)
    softmax(s.astype(np.float32), start, p)
    gradient(p, start, place, weight, slope)
    for r in range(9):
        step = np.eye(9)[r] * 1e-4
        assert slope[r] == pytest.approx((loss(s + step) - loss(s - step)) / 2e-4, abs=1e-4)


def test_pairs_equal_a_dictionary_of_all_pairs_while_rows_have_room() -> None:
    t = new_tables(64, 4, 8, 1 << 16)
    rng = np.random.default_rng(2)
    walks: dict[int, list[int]] = collections.defaultdict(list)
    forward: dict[tuple[int, int], float] = collections.defaultdict(float)
    direct: collections.Counter[tuple[int, int]] = collections.Counter()
    for tick in range(3000):
        user, item = int(rng.integers(4)), int(rng.integers(40))
        before = walks[user][::-1][:20]
        observe(t, user, item, tick * 1000, np.array(before + [0], np.int32), len(before), 0)
        for p, b in enumerate(before):
            if b != item:
                forward[b, item] += 0.9**p
                direct[b, item] += p == 0
        walks[user].append(item)
    for a in range(40):
        first = t.row_start[a]
        for entry in range(first, first + row_size(t, a)):
            if t.pair_item[entry] >= 0:
                b = int(t.pair_item[entry] & SLOT_MASK)
                assert t.pair_weight[entry, FORWARD_LONG] == pytest.approx(forward[a, b], rel=1e-4)
                assert t.pair_weight[entry, DIRECT] == direct[a, b]
                forward.pop((a, b), None)
    lost = sum(forward.values())
    assert lost == 0.0


def test_decayed_counts_equal_the_sum_over_all_events() -> None:
    t = new_tables(4, 4, 8, 1 << 10)
    times = [0, 1000, 5 * 3_600_000, 90_000_000, 50_000_000]  # the last one is late
    for ts in times:
        observe(t, 0, 1, ts, np.zeros(1, np.int32), 0, 0)
    now = max(times)
    for d, half in enumerate(TIME_HALF_LIVES):
        exact = sum(2.0 ** ((ts - now) / half) for ts in times)
        stored = 2.0 ** (t.decayed[1, 3 + d] - now / half)
        assert stored == pytest.approx(exact, rel=1e-9)


def test_hot_lists_equal_a_full_sort() -> None:
    t = new_tables(512, 4, 8, 1 << 12)
    rng = np.random.default_rng(3)
    for tick in range(5000):
        observe(t, 0, int(rng.zipf(1.4)) % 500, tick, np.zeros(1, np.int32), 0, 0)
    best = np.sort(t.taken)[::-1][:20]
    assert t.taken[t.hot[0, :20]].tolist() == best.tolist()


def test_a_late_best_seller_climbs_a_full_hot_list() -> None:
    t = new_tables(512, 4, 8, 1 << 12)
    for item in range(300):
        for tick in range(1 + item % 40):
            observe(t, 0, item, tick, np.zeros(1, np.int32), 0, 0)
    for tick in range(1000):
        observe(t, 0, 0, tick, np.zeros(1, np.int32), 0, 0)
        assert (np.diff(t.taken[t.hot[0, : t.hot_n[0]]]) <= 0).all()
    assert t.hot[0, 0] == 0


def test_no_late_event_finds_more_than_there_ever_was() -> None:
    core = Recommender()
    for n in range(40):
        event = Event(event_id=f"{n}", type="click", user_id="u", item_id=f"i{n % 4}", ts=2**40 + n)
        core.step([Delivery(event, "", 0, n, n)], 2**41)
    event = Event(event_id="late", type="click", user_id="v", item_id="i1", ts=0)
    core.step([Delivery(event, "", 0, 99, 99)], 2**41)
    rows = core._block.x[core._block.start[core._lists - 1] : core._block.start[core._lists]]
    trends = rows[:, [n for n, name in enumerate(NAMES) if name.startswith("trend_")]]
    assert trends.max() <= np.log2(40)


def test_an_expired_item_leaves_its_neighbours() -> None:
    t = new_tables(16, 4, 8, 1 << 10)
    for n in range(60):
        observe(t, 0, n % 3, n, np.array([(n - 1) % 3, 0], np.int32), 1, 0)
    expire(t, 1)
    for item in (0, 2):
        first = t.row_start[item]
        keys = t.pair_item[first : first + row_size(t, item)]
        assert 1 not in [int(k & SLOT_MASK) for k in keys if k >= 0]
    assert 1 not in t.hot[0, : t.hot_n[0]].tolist()


def test_every_feature_belongs_to_a_source_or_to_the_users_context() -> None:
    assert {source_of(name) for name in NAMES} == {*SOURCES, ""}
    assert [SOURCES[n] if n >= 0 else "" for n in SOURCE] == [source_of(name) for name in NAMES]


def test_what_a_source_adds_is_what_the_score_loses_without_it() -> None:
    rng = np.random.default_rng(3)
    contest = Contest(ContestConfig(), 64, rng, plain=True)
    x = (rng.random((40, FEATURES)) + 0.5).astype(np.float32)
    start, place = np.array([0, 20, 40]), np.array([3, 25])
    proposed, unproposed = np.array([20, 20]), np.array([5, 5])
    for _ in range(20):  # so that all rankers have weights and moments of their own
        contest.score(x.copy(), start, 0, proposed)
        contest.learn(np.abs(x), start, proposed, place, unproposed)
    x[::3, SOURCE == 2] = UNKNOWN[SOURCE == 2]  # of which one source knows nothing
    added = contest.contributions(x, UNKNOWN, SOURCE)

    def scores(rows: np.ndarray) -> np.ndarray:
        """But for what is common to all rows: the mixture of what the rankers say."""
        _, scaled = contest._scaled(rows)
        said = np.zeros((len(contest.rankers), len(rows)), np.float32)
        for ranker, out in zip(contest.rankers, said, strict=True):
            ranker.score(scaled, np.array([0, len(rows)]), out)
        return np.asarray(contest.weights @ said)

    for n in range(len(SOURCES)):
        without = np.where(SOURCE == n, UNKNOWN, x)
        np.testing.assert_allclose(added[:, n], scores(x) - scores(without), atol=2e-4)
    assert (added[::3, 2] == 0.0).all() and (added[1::3, 2] != 0.0).all()
    assert np.array_equal(contest.contributions(x[5:6], UNKNOWN, SOURCE), added[5:6])


def test_the_network_equals_torch() -> None:
    torch = pytest.importorskip("torch", reason="the comparison needs torch")
    rng = np.random.default_rng(7)
    ranker = NeuralRanker(RankerConfig(average=0.7), rng)
    start, place, weight = np.array([0, 40, 90]), np.array([3, 77]), np.array([1, 0.5], np.float32)
    x = rng.normal(size=(90, FEATURES)).astype(np.float32)
    w, b, v, u = (torch.tensor(p.copy(), requires_grad=True) for p in ranker._parameters)
    average = [p.detach().clone() for p in (w, b, v, u)]
    adam, out = torch.optim.Adam([w, b, v, u], lr=RankerConfig().neural_rate), np.zeros(90, "f4")
    tx = torch.tensor(x)
    for step in range(1, 4):
        lists = (torch.relu(tx @ w + b) @ v + tx @ u).split([40, 50])
        losses = [-torch.log_softmax(each, 0)[at] for each, at in zip(lists, (3, 37), strict=True)]
        adam.zero_grad()
        (losses[0] + 0.5 * losses[1]).div(2).backward()
        adam.step()
        ranker.learn(x, start, out, place, weight)
        for ours, theirs in zip(ranker._parameters, (w, b, v, u), strict=True):
            # a step is 2e-3 whatever the gradient: where that is nothing but noise, they differ
            assert np.abs(ours - theirs.detach().numpy()).mean() < 2e-5
        keep = min(0.7, step / (step + 1))
        average = [
            keep * a + (1 - keep) * p.detach() for a, p in zip(average, (w, b, v, u), strict=True)
        ]
    w, b, v, u = average
    ranker.score(x, start, out)
    assert np.allclose(out, (torch.relu(tx @ w + b) @ v + tx @ u).numpy(), atol=2e-2)


class _Noise:
    """A ranker that never learns anything."""

    name = "noise"

    def __init__(self) -> None:
        self._rng = np.random.default_rng(9)

    def score(self, x: np.ndarray, start: np.ndarray, out: np.ndarray) -> None:
        out[start[0] : start[-1]] = self._rng.normal(size=start[-1] - start[0]) * 3

    def learn(self, *_: np.ndarray) -> None: ...


def test_a_useless_ranker_in_the_contest_soon_has_no_say() -> None:
    rows = 16 * ROWS
    contest = Contest(ContestConfig(), rows, np.random.default_rng(0), plain=False)
    contest.rankers[1] = _Noise()  # type: ignore[call-overload]
    rng = np.random.default_rng(4)
    start = np.arange(0, 16 * 40 + 1, 40)
    for _ in range(120):
        raw = rng.random((16 * 40, FEATURES)).astype(np.float32) + 0.5
        place = start[:-1] + raw[:, 0].reshape(16, 40).argmax(1)  # the first feature decides
        proposed = np.full(16, 40)
        contest.score(raw, start, 0, proposed)
        contest.learn(raw, start, proposed, place, np.zeros(16, np.int64))
    assert contest.weights[0] > 0.99
