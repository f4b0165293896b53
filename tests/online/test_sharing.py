"""What workers learn from each other, core to core."""

from __future__ import annotations

import random

import msgspec
import numpy as np

from online.core import Recommender, RecommenderConfig
from online.events import Delivery, Event
from online.memory import MemoryConfig
from online.rehearsal import Rehearsal
from online.sharing import Follower
from online.state import differences
from online.step import Step
from online.teaching import EncoderConfig
from online.told import SHADOW, Told

SMALL = MemoryConfig(users=10_000, items=1_000, pages=20_000, pairs=100_000, history=64)
ENCODER = EncoderConfig(width=4, channels=4, hidden=4, every=40, steps=0.1)
NOW = 10**9


def config(share: int = 16, follows: bool = False) -> RecommenderConfig:
    encoder = EncoderConfig(width=4, channels=4, hidden=4, every=40, steps=0.1, follows=follows)
    return RecommenderConfig(memory=SMALL, block=4, share=share, encoder=encoder)


def deliveries(count: int, seed: int, users: int = 40) -> list[Delivery]:
    rng = random.Random(seed)
    return [
        Delivery(
            Event(event_id=f"{seed}-{n}", type="click", user_id=f"{seed}-u{rng.randrange(users)}",
                  item_id=f"i{rng.randrange(50)}", ts=n * 1000),
            "events", 0, n, n,
        )
        for n in range(count)
    ]  # fmt: skip


def told(step: Step) -> list[Told]:
    events = (d.event for d in step.accepted)
    return [Told(e.event_id, e.type, SHADOW + e.user_id, e.item_id, e.ts) for e in events]


def counts(core: Recommender) -> dict[str, float]:
    memory = core._memory
    return {item: float(memory.tables.taken[memory.items.get(item)]) for item in memory.items._slot}


def test_events_of_others_count_once_and_nobody_is_recommended_to() -> None:
    one, other = Recommender(config()), Recommender(config())
    for n in range(0, 300, 50):
        ours, theirs = (core.step(deliveries(300, seed)[n : n + 50], NOW)
                        for seed, core in ((1, one), (2, other)))  # fmt: skip
        one.hear(told(theirs))
        other.hear(told(ours))
        other.hear(told(ours))  # the same words again
        assert all(not s.user_id.startswith(SHADOW) for s in ours.slates + theirs.slates)
    assert counts(one) == counts(other)
    assert sum(counts(one).values()) == 600
    assert one.quality()["targets"] == 300


def test_rankers_that_heard_the_same_are_the_same() -> None:
    cores = [Recommender(config()) for _ in range(3)]
    words = []
    for source, core in enumerate(cores):
        for n in range(0, 400, 40):
            said = core.step(deliveries(400, source)[n : n + 40], NOW).rankers
            if said is not None:
                words.append((source, said))
    random.Random(1).shuffle(words)
    newest = dict(sorted(words, key=lambda word: word[1].rows))
    for listener, core in enumerate(cores):
        for source, said in newest.items():
            if source != listener:
                core.heard_rankers(source, said)
                core.heard_rankers(source, said)  # twice changes nothing
    for core in cores:  # but for what each learned since its last word
        assert core._exchange is not None
        core._contest.add_flat(core._exchange._base - core._contest.flat())
    for core in cores[1:]:
        np.testing.assert_allclose(core._contest.flat(), cores[0]._contest.flat(), atol=1e-4)


def test_a_follower_serves_what_the_trainer_told() -> None:
    trainer = Recommender(config(), Rehearsal(ENCODER))
    follower = Recommender(config(follows=True), Follower())
    batch = deliveries(200, 3)
    for n in range(0, 200, 50):
        step = trainer.step(batch[n : n + 50], NOW)
        follower.hear(told(step))
        if step.weights is not None:
            follower.adopt(step.weights)
    ours, theirs = trainer._memory, follower._memory
    assert follower.quality()["encoder_version"] == trainer.quality()["encoder_version"] > 0
    for item in ours.items._slot:
        a, b = ours.items.get(item), theirs.items.get(item)
        assert np.array_equal(ours.sequences.vector[a], theirs.sequences.vector[b])
    assert follower.step(deliveries(50, 4), NOW).weights is None  # it does not speak for the other


def test_weights_that_were_damaged_on_their_way_are_not_served() -> None:
    trainer = Recommender(config(), Rehearsal(ENCODER))
    follower = Recommender(config(follows=True), Follower())
    batch, said = deliveries(200, 3), None
    for n in range(0, 200, 50):
        step = trainer.step(batch[n : n + 50], NOW)
        follower.hear(told(step))
        said = step.weights or said
    assert said is not None
    for name in ("vectors", "bias"):
        damaged = np.full(len(getattr(said, name)) // 4, np.nan, np.float32).tobytes()
        follower.adopt(msgspec.structs.replace(said, **{name: damaged}))
        assert follower.quality()["encoder_version"] == 0
    follower.adopt(said)
    assert follower.quality()["encoder_version"] == said.version


def test_a_core_that_was_kept_goes_on_as_if_nothing_had_happened() -> None:
    whole, broken = Recommender(config()), Recommender(config())
    batch = deliveries(400, 5)
    for n in range(0, 200, 30):
        whole.step(batch[n : min(n + 30, 200)], NOW)
        broken.step(batch[n : min(n + 30, 200)], NOW)
    again = Recommender(config())
    assert again.resume(broken.state(), "")
    assert differences(again.state(), whole.state()) == []
    assert again.step(batch[200:], NOW).slates == whole.step(batch[200:], NOW).slates
    assert differences(again.state(), whole.state()) == []


def test_users_that_were_dropped_are_missing_and_shadows_stay() -> None:
    core = Recommender(config())
    step = core.step(deliveries(50, 6), NOW)
    core.hear(told(step))
    core.drop_users()
    assert set(core.missing(deliveries(50, 6))) == {d.event.user_id for d in deliveries(50, 6)}
    assert all(name.startswith(SHADOW) for name in core._memory.users.ids_held())
