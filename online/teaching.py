"""How the sequence encoder learns beside the core: lessons out, weights in, at set events.

Every `every` events there is a turn. What the trainer made of the last lesson begins to serve, and
the next lesson begins: the events since. So a replay has each weight serve from the same event on,
however long training takes. Live the core does not wait: a trainer that is not done is asked again
at the next turn.

A guard follows the encoder's own prequential hit rate. When it falls to a part of what it was,
or when weights are not finite, the last good ones serve again.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from online.guard import Guard
from online.sequence import ADVANCED, NOWHERE, REBUILT, Dense, Sequences, publish
from online.state import State
from online.step import Metric, Turn
from online.tables import SLOT_MASK

Array = np.ndarray
Changed = Callable[[Sequences, Array], None]
MOST_WAITING = 1 << 18  # events that no lesson has taken yet: as many as a replay holds
UNDO = 6  # activations that a fall of quality takes back


@dataclass(frozen=True)
class EncoderConfig:
    on: bool = True
    width: int = 48  # of an item's vector
    channels: int = 96  # of a user's state
    hidden: int = 96  # units of the head
    states_mb: float = 64.0  # MB (2^20) for users' states; the rest is made anew when needed
    exact_items: int = 150_000  # up to which the nearest are looked for among all
    every: int = 500  # events in a lesson
    steps: float = 0.008  # training steps for each event
    overlap: bool = True  # weights serve a lesson later, which lets training run meanwhile
    wait: bool = True  # for the trainer at each turn; live nobody waits
    start: str = ""  # folder of a checkpoint to start from
    share: float = 0.25  # of the trainer's time, live: it rests between lessons; 0: no lessons
    device: str = "auto"  # auto, cpu, cuda or mps: where training runs
    project: bool = True  # items without a vector get one from their texts
    vectors: bool = True  # users' and items' vectors are part of what is written
    follows: bool = False  # another worker trains it, and tells
    until: int = 0  # events after which nothing is learned any more; 0: no end

    def __post_init__(self) -> None:
        lowest = {"width": 4, "channels": 4, "hidden": 4, "every": 1}
        for name, low in lowest.items():
            if getattr(self, name) < low:
                raise ValueError(f"encoder.{name}={getattr(self, name)}: at least {low} is needed")
        if not 0 <= self.steps <= 1:
            raise ValueError(f"encoder.steps={self.steps}: use 0 to 1 steps for each event")
        if not 0 <= self.share <= 1:
            raise ValueError(f"encoder.share={self.share}: use a share of time, 0 to 1")
        if not self.states_mb >= 1:
            raise ValueError(f"encoder.states_mb={self.states_mb}: at least 1 is needed")


class Lesson(NamedTuple):
    """Events (E,) that the trainer has not seen, in order, and how many steps it may take."""

    number: int
    steps: int
    user: Array  # i4 key
    item: Array  # i4 key
    kind: Array  # i1
    price: Array  # i1 bucket
    ts: Array  # i8


class Publication(NamedTuple):
    """What came of a lesson."""

    number: int  # of the lesson: the version of these weights
    dense: Dense
    item: Array  # (N,) i4 keys whose vectors are new
    vector: Array  # (N, D)
    bias: Array  # (N,) NOWHERE: has no vector any more
    loss: float  # mean over the steps; nan without any
    skipped: int  # steps that were left out because they were not finite


class Undo(NamedTuple):
    """What an activation replaced."""

    version: int
    dense: Dense
    slots: Array
    key: Array
    vector: Array
    bias: Array


class Trainer(Protocol):
    """Learns one lesson at a time. `encoders.trainer` does, in a process or not."""

    def idle(self) -> bool:
        """May a lesson begin? A trainer on a budget rests between lessons."""
        ...

    def begin(self, lesson: Lesson) -> None: ...

    def ready(self) -> bool:
        """Is the lesson that has begun at its end?"""
        ...

    def finish(self) -> Publication:
        """Wait for its end."""
        ...

    def start(self, keys: Array) -> Publication:
        """Go on from the checkpoint, whose items, in order, have these keys here."""
        ...

    def roll_back(self, number: int) -> None:
        """Be again as after that lesson: one of the last UNDO + 2."""
        ...

    def save(self, place: str) -> bool:
        """Keep everything that was learned, and what came of the last lesson, under that name.

        Does not wait: the trainer does it after the lesson that it is at. False: there is nothing.
        """
        ...

    def resume(self, place: str, number: int, busy: bool) -> None:
        """Be as when that was saved. busy: what came of lesson `number` is still to be finished."""
        ...

    def close(self) -> None:
        """Nothing more will be asked for."""
        ...


class Teaching:
    """Lessons, turns and the guard; `turn` is called when `until` events have been counted."""

    _KEPT = ("_waiting", "_begun", "_busy", "_owed", "_serial", "version", "until", "rollbacks",
             "loss")  # fmt: skip

    def __init__(self, config: EncoderConfig, trainer: Trainer) -> None:
        self._config = config
        self._trainer = trainer
        self._guard = Guard(config.every)
        self._events: collections.deque[tuple[Array, ...]] = collections.deque()
        self._waiting = 0  # events in them
        self._begun = 0  # number of the newest lesson
        self._busy = False
        self._owed = 0.0  # steps
        self._serial = 0
        self._undo: collections.deque[Undo] = collections.deque(maxlen=UNDO)
        self._script: collections.deque[Turn] = collections.deque()
        self.turns: list[Turn] = []  # since they were last taken away
        self.version = 0  # number of the lesson that the serving weights come from
        self.until = config.every
        self.rollbacks = 0
        self.loss = float("nan")

    @property
    def hit_rate(self) -> float:
        """Share of the targets that were among the encoder's own ten best."""
        return self._guard.hits / max(self._guard.targets, 1)

    def saw(self, encoder: Array, system: Array) -> None:
        """Of some targets (N,): were they among the ten best of the encoder, of the system?"""
        for ours, all_together in zip(encoder.tolist(), system.tolist(), strict=True):
            self._guard.saw(ours, all_together)

    def note(self, *columns: Array) -> None:
        """Events (E,) that were accepted: the columns of a Lesson.

        A trainer that is never ready misses the oldest: no more than MOST_WAITING are kept.
        """
        if not len(columns[0]) or self._learned_all or self._config.follows:
            return
        self._events.append(columns)
        self._waiting += len(columns[0])
        while self._waiting > MOST_WAITING:
            self._waiting -= len(self._events.popleft()[0])

    @property
    def _learned_all(self) -> bool:
        return 0 < self._config.until <= self.until - self._config.every

    def close(self) -> None:
        self._trainer.close()

    # -- state -------------------------------------------------------------------------------

    def state(self) -> State:
        """Everything but the trainer's own, which `save` keeps at the same moment."""
        events = [np.concatenate(each) for each in zip(*self._events, strict=True)]
        undo = [{**u._asdict(), "dense": u.dense._asdict()} for u in self._undo]
        return {
            "guard": self._guard.state(),
            "events": events,
            "undo": undo,
            **{name.lstrip("_"): getattr(self, name) for name in self._KEPT},
        }

    def save(self, place: str) -> bool:
        """Have the trainer keep its state, as it is now or will be after the lesson under way."""
        return self._trainer.save(place)

    def restore(self, state: State, place: str) -> None:
        """Be as when `state` and the trainer's, at `place`, were taken."""
        for name in self._KEPT:
            setattr(self, name, state[name.lstrip("_")])
        self._guard.restore(state["guard"])
        self._events.clear()
        if state["events"]:
            self._events.append(tuple(state["events"]))
        self._undo.clear()
        for undo in state["undo"]:
            self._undo.append(Undo(**{**undo, "dense": Dense(**undo["dense"])}))
        self._trainer.resume(place, self._begun, self._busy)

    def start(self, q: Sequences, keys: Array, changed: Changed) -> None:
        """Serve, from the beginning, what the trainer's checkpoint holds.

        keys: (N,) of its items in order, below 0 for one that has no slot.
        """
        made = self._trainer.start(keys)
        self._begun = self.version = made.number
        self._serial += 1
        slots = made.item & SLOT_MASK
        publish(q, self._serial, made.dense, slots, made.vector, made.bias)
        changed(q, slots)

    def adopt(self, q: Sequences, made: Publication, changed: Changed) -> None:
        """Serve weights that were learned elsewhere; made.item: slots that are held."""
        self._serial += 1
        publish(q, self._serial, made.dense, made.item, made.vector, made.bias)
        changed(q, made.item)
        self.version = made.number

    def turn(self, q: Sequences, key: Array, ts: int, changed: Changed) -> list[Metric]:
        """Activate what is ready and begin the next lesson. key: (I,) the items' current keys;
        changed: is told the slots whose vectors are new."""
        metrics: list[Metric] = []
        at, begun = self.until, self._begun
        self.until += self._config.every
        if self._guard.alarmed():
            metrics += self._roll_back(q, key, ts, changed)
        activates, begins = self._decided(at)
        activates &= self._busy
        if activates:
            metrics += self._activate(q, key, ts, changed)
        if not self._busy and begins():
            self._begin()
            if self._busy and not self._config.overlap and self._config.wait:
                metrics += self._activate(q, key, ts, changed)
        self.turns.append(Turn(at, activates, self._begun > begun))
        if not self._config.wait:  # a trainer that gets no time shows here
            metrics.append(Metric("encoder_waiting", self._waiting, 1, ts))
        return metrics

    def follow(self, turns: Iterable[Turn]) -> None:
        """Decide the coming turns as these were decided; those in between do nothing."""
        self._script.extend(turns)

    def _decided(self, at: int) -> tuple[bool, Callable[[], bool]]:
        """Shall a lesson that is under way be finished now, and may the next one begin?"""
        while self._script and self._script[0].at < at:
            self._script.popleft()
        if self._script:
            turn = self._script.popleft() if self._script[0].at == at else Turn(at, False, False)
            return turn.activated, lambda: turn.began
        if self._config.wait:
            return True, lambda: True
        return self._busy and self._trainer.ready(), self._trainer.idle

    def _begin(self) -> None:
        if not self._events:
            return
        columns = [np.concatenate(each) for each in zip(*self._events, strict=True)]
        self._owed = min(self._owed, 4.0) + self._config.steps * self._waiting
        most = max(4 * int(self._config.steps * self._config.every), 1)
        steps = min(int(self._owed), most)
        self._owed -= steps
        self._events.clear()
        self._waiting = 0
        self._begun += 1
        self._busy = True
        self._trainer.begin(Lesson(self._begun, steps, *columns))

    def _activate(self, q: Sequences, key: Array, ts: int, changed: Changed) -> list[Metric]:
        made = self._trainer.finish()
        self._busy = False
        slots = made.item & SLOT_MASK
        held = key[slots] == made.item  # others were forgotten while the trainer learned
        slots, vectors, bias = slots[held], made.vector[held], made.bias[held]
        figures = [
            Metric("encoder_version", made.number, len(slots), ts),
            Metric("encoder_hr@10", self.hit_rate, self._guard.targets, ts),
            Metric("encoder_rebuilt", *rebuilt(q), ts),
        ]
        if made.skipped:
            figures.append(Metric("encoder_skipped_steps", made.skipped, made.skipped, ts))
        if not _finite(made):
            self._trainer.roll_back(self.version)
            self.rollbacks += 1
            _take_away(q, key, made, changed)
            return [*figures[1:], Metric("encoder_rollback", self.version, made.number, ts)]
        dense = Dense(*(a.copy() for a in q.dense))
        before = Undo(self.version, dense, slots, key[slots].copy(), q.vector[slots], q.bias[slots])
        self._undo.append(before)
        self._serial += 1
        publish(q, self._serial, made.dense, slots, vectors, bias)
        changed(q, slots)
        self.version, self.loss = made.number, made.loss
        if made.loss == made.loss:
            figures.append(Metric("encoder_loss", made.loss, 1, ts))
        return figures

    def _roll_back(self, q: Sequences, key: Array, ts: int, changed: Changed) -> list[Metric]:
        """The last good weights serve again, and learning goes on from them.

        A fall takes a turn or two to be seen. So they are those of UNDO turns ago.
        """
        self._guard.reset()
        if len(self._undo) < UNDO or self._undo[0].version == 0:
            return []
        if self._busy:  # it went on from what turned out bad
            _take_away(q, key, self._trainer.finish(), changed)
            self._busy = False
        bad = self.version
        while self._undo:
            undo = self._undo.pop()
            held = key[undo.slots] == undo.key
            self._serial += 1
            publish(
                q, self._serial, undo.dense, undo.slots[held], undo.vector[held], undo.bias[held]
            )
            changed(q, undo.slots[held])
            self.version = undo.version
        self._trainer.roll_back(self.version)
        self.rollbacks += 1
        return [Metric("encoder_rollback", self.version, bad, ts)]


def _take_away(q: Sequences, key: Array, made: Publication, changed: Changed) -> None:
    """Of a lesson that counts for nothing: the items that lost their rows have no vectors."""
    lost = made.item[made.bias == NOWHERE]
    slots = lost & SLOT_MASK
    slots = slots[key[slots] == lost]
    q.bias[slots] = NOWHERE
    changed(q, slots)


def rebuilt(q: Sequences) -> tuple[float, int]:
    """Of the times that a state was needed or moved, the share when it was made anew; and how many
    times that were."""
    advanced, anew = int(q.counts[ADVANCED]), int(q.counts[REBUILT])
    return anew / max(advanced + anew, 1), advanced + anew


def _finite(made: Publication) -> bool:
    vectors = made.vector[made.bias != NOWHERE]
    return all(np.isfinite(a).all() for a in (*made.dense, vectors, made.bias))
