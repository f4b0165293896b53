"""The encoder in the core: lessons at set events, weights that are taken back, vectors, states."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from online.core import Recommender, RecommenderConfig
from online.events import Delivery, Event
from online.features import LEAST
from online.memory import MemoryConfig
from online.nearness import SCORE
from online.sequence import NOWHERE
from online.step import Metric, Step
from online.tables import SLOT_MASK
from tests.encoders.direct import SMALL_ENCODER, Direct, NotFinite, Spoiled
from tests.encoders.streams import walk

CONFIG = RecommenderConfig(
    memory=MemoryConfig(users=10_000, items=1_000, pages=20_000, pairs=100_000, history=64),
    encoder=SMALL_ENCODER,
)


def event(event_id: str, kind: str, user: str, item: str, ts: int) -> Event:
    return Event(event_id=event_id, type=kind, user_id=user, item_id=item, ts=ts)


def deliveries(events: int, seed: int = 0) -> list[Delivery]:
    user, item, _, _, ts = walk(events, seed=seed)
    rows = enumerate(zip(user.tolist(), item.tolist(), ts.tolist(), strict=True))
    return [
        Delivery(event(f"e{n}", "click", f"u{u}", f"i{i}", t), "events", 0, n, t)
        for n, (u, i, t) in rows
    ]


def run(core: Recommender, log: list[Delivery], batch: int) -> list[Step]:
    return [core.step(log[n : n + batch], log[-1].event.ts) for n in range(0, len(log), batch)]


def metrics(steps: list[Step], name: str) -> list[Metric]:
    return [m for step in steps for m in step.metrics if m.name == name]


def test_weights_serve_from_the_same_events_on_however_batches_are_cut() -> None:
    log, lessons, served = deliveries(1_000), [], []
    for batch in (1, 37, 400):
        trainer = Direct()
        core = Recommender(CONFIG, trainer)
        steps = run(core, log, batch)
        lessons.append([(x.number, x.steps, x.ts.tolist()) for x in trainer.lessons])
        activations = metrics(steps, "encoder_version")
        served.append(([(m.value, m.ts) for m in activations], core._memory.sequences.dense))
    assert lessons[0] == lessons[1] == lessons[2]
    assert [number for number, _, _ in lessons[0]] == list(range(1, 11))
    for activations, dense in served[1:]:
        assert activations == served[0][0]
        assert all(np.array_equal(a, b) for a, b in zip(dense, served[0][1], strict=True))


def test_the_same_log_and_batches_give_the_same_slates() -> None:
    log = deliveries(600)
    first, second = (run(Recommender(CONFIG, Direct()), log, 50) for _ in range(2))
    assert [s.slates for s in first] == [s.slates for s in second]
    assert [s.vectors for s in first] == [s.vectors for s in second]
    assert first[-1].slates[0].model_version.endswith("-encoder-5")


def test_it_helps_where_the_order_of_events_tells_what_comes_next() -> None:
    core = Recommender(CONFIG, Direct())
    run(core, deliveries(3_000), 100)
    quality = core.quality()
    assert quality["encoder_hr@10"] > 0.5
    assert quality["encoder_rollbacks"] == 0
    assert 0.0 < quality["encoder_rebuilt"] < 0.9


def test_nobody_waits_live_and_what_is_late_serves_at_a_later_turn() -> None:
    trainer = Direct()
    trainer.done = False
    core = Recommender(replace(CONFIG, encoder=replace(SMALL_ENCODER, wait=False)), trainer)
    log = deliveries(1_000)
    assert not metrics(run(core, log[:450], 50), "encoder_version")
    assert len(trainer.lessons) == 1
    trainer.done = True
    steps = run(core, log[450:650], 50)
    assert [m.value for m in metrics(steps, "encoder_version")] == [1, 2]
    assert [len(x.ts) for x in trainer.lessons] == [100, 400, 100]  # nothing is left out


def test_weights_that_spoil_the_ranking_are_taken_back() -> None:
    trainer = Spoiled()
    core = Recommender(CONFIG, trainer)
    log = deliveries(6_000)
    run(core, log[:3_000], 100)
    trainer.bad_from = len(trainer.lessons)
    steps = run(core, log[3_000:], 100)
    back = metrics(steps, "encoder_rollback")
    assert back and back[0].value < trainer.bad_from <= back[0].count
    assert trainer.rolled_back[0] == back[0].value
    assert core.quality()["encoder_rollbacks"] == len(back)


def test_an_item_that_lost_its_row_in_a_lesson_that_counts_for_nothing_has_no_vector() -> None:
    trainer = NotFinite()
    core = Recommender(CONFIG, trainer)
    log = deliveries(1_000)
    steps = [run(core, [d], 1)[0] for d in log[:550]]
    bias = core._memory.sequences.bias
    for d in log[550:]:
        before = bias.copy()
        steps += run(core, [d], 1)
        if metrics(steps[-1:], "encoder_rollback"):
            break
    slot = trainer.lost & SLOT_MASK
    assert before[slot] != NOWHERE == bias[slot]


def test_weights_that_are_no_numbers_never_serve() -> None:
    trainer = NotFinite()
    core = Recommender(CONFIG, trainer)
    steps = run(core, deliveries(1_000), 100)
    assert [m.value for m in metrics(steps, "encoder_rollback")] == [4]
    assert 5 not in [m.value for m in metrics(steps, "encoder_version")]
    assert [m.value for m in metrics(steps, "encoder_version")][-1] == 9  # learning went on
    assert all(np.isfinite(a).all() for a in core._memory.sequences.dense)
    assert all(np.isfinite(r.score) for s in steps[-1].slates for r in s.recommendations)


def test_the_product_of_the_vectors_is_the_encoders_score() -> None:
    core = Recommender(CONFIG, Direct())
    log = deliveries(1_000)
    step = run(core, log, 100)[-1]
    users = {v.id: v for v in step.vectors if v.table == "user_vectors"}
    items = {v.id: v for v in step.vectors if v.table == "item_vectors"}
    assert set(users) == {s.user_id for s in step.slates}
    assert set(items) == {d.event.item_id for d in step.accepted}
    user, when = step.slates[0].user_id, step.slates[0].ts
    core.recommend(user, when)
    lists, slots = core._slates._lists, core._memory.items
    rows = {slots.ids[lists.cand[r]]: r for r in range(lists.start[1])}
    query = np.frombuffer(users[user].values, np.float32)
    pairs = [(rows[i], np.frombuffer(v.values, np.float32) @ query) for i, v in items.items()]
    scores = np.array([score for _, score in pairs])
    listed = np.array([lists.x[row, SCORE] for row, _ in pairs])
    normal = (scores - listed)[listed > LEAST]  # the log of the list's sum, the same for all
    assert len(normal) > 4
    np.testing.assert_allclose(normal, normal[0], atol=1e-3)


def test_a_late_event_and_a_forgotten_past_make_the_state_anew() -> None:
    core = Recommender(CONFIG, Direct())
    log = deliveries(500)
    run(core, log, 100)
    late = Delivery(event("late", "click", "u1", "i2", log[250].event.ts + 1), "events", 0, 900, 0)
    last = log[-1].event.ts
    core.step([late], last)
    other = Recommender(CONFIG, Direct())
    run(other, log, 100)
    other.step([late], last)
    other._memory.sequences.made[:] = -1  # as if all states were stale
    assert core.recommend("u1", last) == other.recommend("u1", last)
    forget = Delivery(event("f", "forget", "u1", "", last), "events", 0, 901, 0)
    core.step([forget], last)
    assert core._memory.sequences.row[core._memory.users.get("u1")] == -1
    assert core.recommend("u1", last) == core.recommend("nobody", last)


def test_users_without_a_state_are_ranked_as_those_who_have_one() -> None:
    log, found = deliveries(800), []
    for megabytes in (64.0, 1.0):
        core = Recommender(replace(CONFIG, encoder=replace(SMALL_ENCODER, states_mb=megabytes)),
                           Direct())  # fmt: skip
        if megabytes == 1.0:
            core._memory._states = 4  # 4 of 20 users
            core._memory.sequences = core._memory.sequences._replace(
                **{name: getattr(core._memory.sequences, name)[:4]
                   for name in ("owner", "used", "made", "state", "last", "near")}
            )  # fmt: skip
        steps = run(core, log, 20)
        found.append([rank for step in steps for _, rank in step.ranks])
        assert core.quality()["encoder_rebuilt"] > (0.5 if megabytes == 1.0 else 0.0)
    assert len(found[0]) == len(found[1])
    same = np.mean(np.array(found[0]) == np.array(found[1]))
    assert same > 0.9  # but for the nearest items, which the state's row remembers


@pytest.mark.parametrize(
    "wrong", [{"width": 1}, {"steps": 2.0}, {"share": 1.5}, {"states_mb": 0.5}, {"every": 0}]
)
def test_wrong_settings_are_refused_by_name(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"encoder.{next(iter(wrong))}="):
        replace(SMALL_ENCODER, **wrong)


def test_a_trainer_that_is_never_ready_misses_the_oldest_events(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("online.teaching.MOST_WAITING", 250)
    trainer = Direct()
    trainer.done = False
    core = Recommender(replace(CONFIG, encoder=replace(SMALL_ENCODER, wait=False)), trainer)
    log = deliveries(1_000)
    waiting = [m.value for m in metrics(run(core, log[:850], 50), "encoder_waiting")]
    assert waiting == [0, 100, 200, 250, 250, 250, 250, 250]
    trainer.done = True
    run(core, log[850:], 50)
    assert [len(x.ts) for x in trainer.lessons][1] <= 250
    assert trainer.lessons[1].ts[-1] == log[899].event.ts  # the newest


@pytest.mark.parametrize("overlap", [True, False])
def test_nothing_is_learned_or_kept_after_the_end_of_learning(overlap: bool) -> None:
    trainer, encoder = Direct(), replace(SMALL_ENCODER, until=300, overlap=overlap)
    core = Recommender(replace(CONFIG, encoder=encoder), trainer)
    run(core, deliveries(1_000), 50)
    assert sum(len(x.ts) for x in trainer.lessons) == 300
    assert trainer.finished == len(trainer.lessons)  # nobody waits for one that never began
    assert core._teaching is not None and not core._teaching._events
