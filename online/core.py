"""The core: events in, what must be written out. No Kafka, no warehouse, no clock."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from online.columns import columns_of, past_columns, since_forget
from online.contest import Contest, ContestConfig
from online.engine import INTERACTION, ROWS, Batch, advance, new_lists, recall
from online.events import Delivery, Item, event_fault
from online.history import DUPLICATE, FORGET, FORGOTTEN, FULL, NEW, TOO_LATE, only_forget
from online.memory import PART, Memory, MemoryConfig
from online.nearest import Index, Nearest
from online.nearness import RANK, TOP_10
from online.observe import NEGATIVE
from online.projection import Projection
from online.quality import Quality
from online.rehearsal import rehearse
from online.rows import slate_row, vector_rows
from online.searching import Search
from online.sequence import Sequences
from online.sharing import RankerExchange, dense_of, weights_of
from online.similarity import similar
from online.slates import SlateMaker
from online.state import State
from online.step import (
    OF_A_FORGOTTEN_PAST,
    PastEvent,
    Recommendation,
    Reject,
    Step,
    Turn,
)
from online.tables import PAGE, TICK
from online.teaching import EncoderConfig, Publication, Teaching, Trainer, rebuilt
from online.texts import TextConfig, TextVector
from online.told import SHADOW, Rankers, Told, Weights

AT_ONCE = 4  # events that are learned between two pauses: some 3 ms
HEARD_AT_ONCE = 128  # that others learned, and that only count: as long


@dataclass(frozen=True)
class RecommenderConfig:
    k: int = 10  # length of a slate
    seed: int = 0
    targets: tuple[str, ...] = ("click", "cart", "purchase", "rating")
    exclude_seen: bool = False  # never recommend what the user had (catalogues without repeats)
    block: int = 16  # lists that the rankers score before they learn from them
    memory: MemoryConfig = field(default_factory=MemoryConfig)
    contest: ContestConfig = field(default_factory=ContestConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    text: TextConfig = field(default_factory=TextConfig)
    share: int = 0  # lists after which other workers are told of the rankers; 0: there are none


class Recommender:
    """Scores, measures and learns from batches of deliveries; one caller at a time.

    >>> from online.events import Event
    >>> core = Recommender()
    >>> event = Event(event_id="1", type="click", user_id="ann", item_id="cup", ts=1)
    >>> step = core.step([Delivery(event, "events", 0, 0, 1)], now_ms=1)
    >>> step.slates[0].recommendations[0].item_id
    'cup'
    """

    def __init__(
        self,
        config: RecommenderConfig = RecommenderConfig(),
        trainer: Trainer | None = None,
        index: Index | None = None,
    ) -> None:
        """trainer: teaches the sequence encoder; without one there is none, whatever `config`.

        index: finds the nearest of many items; without one all are looked at.
        """
        # Results must not depend on how many cores BLAS finds; and on the small products here its
        # threads only get in the way of each other (measured: a third of the speed on 2 cores).
        threadpool_limits(1, user_api="blas")
        self.config = config
        self._memory = Memory(config.memory, config.encoder if trainer else None, config.text)
        self._teaching = Teaching(config.encoder, trainer) if trainer else None
        rng = np.random.default_rng(config.seed)
        plain = trainer is not None or config.text.on
        self._contest = Contest(config.contest, config.block * ROWS, rng, plain)
        self._block = new_lists(config.block)
        self._lists = 0  # in the block
        self._quality = Quality()
        self._exchange = RankerExchange(self._contest, config.share) if config.share else None
        self._projection = Projection()
        self._untold: list[np.ndarray] = []  # items whose new vectors the others do not have
        self._aside = Step()  # what came of events that were only heard of
        self._nearest = Nearest(index, config.encoder.exact_items)
        self._slates = SlateMaker(
            self._memory, self._contest, self._nearest, config.k, config.exclude_seen
        )
        self._search = Search(self._memory, self._contest)
        # called in the middle of a batch, where nothing is half done: there, too, `search` and
        # `similar` may be asked. What it does must change nothing.
        self.pause: Callable[[], None] = lambda: None
        self._memory.pause = lambda: self.pause()

    # -- catalogue ---------------------------------------------------------------------------

    def announce(self, items: Iterable[Item]) -> None:
        """Add items to the catalogue, or change them. Those without stock are never shown."""
        for item in items:
            self._memory.announce(item)

    def put_texts(self, vectors: Iterable[TextVector]) -> None:
        """What the texts of items, and queries, say: from the next event on it counts."""
        for one in vectors:  # among 50,000 items each takes a millisecond
            self._memory.put_text(one)
            self.pause()

    def without_text(self) -> list[str]:
        """Items of the catalogue of whose texts nothing is known (yet, or any more); those that
        are taken most come first."""
        return self._memory.without_text()

    def withdraw(self, item_ids: Iterable[str]) -> None:
        """Never show these again, until they are announced again."""
        for item_id in item_ids:
            self._memory.withdraw(item_id)

    def start_encoder(self, item_ids: Sequence[str]) -> None:
        """Serve the trainer's checkpoint from now on; item_ids: its items, in order.

        They take slots, as far as there is room, but are not recommended before they are known.
        """
        assert self._teaching is not None, "there is no trainer"
        room = self.config.memory.items - len(self._memory.items)
        keys = np.full(len(item_ids), -1, np.int64)
        for n, item_id in enumerate(item_ids[:room]):
            self._memory.make_room(items=1)
            keys[n] = self._memory.tables.key[self._memory.take_item(item_id)]
        self._teaching.start(self._memory.sequences, keys, self._changed)

    def close(self) -> None:
        """Let the trainer go, if there is one."""
        if self._teaching is not None:
            self._teaching.close()

    # -- histories ---------------------------------------------------------------------------

    @property
    def history_limit(self) -> int:
        """How many events of a user are kept (the `limit` of `History.read`)."""
        return self._memory.config.history

    def missing(self, batch: list[Delivery]) -> list[str]:
        """Users of `batch` whose history the core does not hold: read them, then `restore`.

        Those that it holds count as used, so that restoring the others does not evict them.
        """
        return self.absent(dict.fromkeys(d.event.user_id for d in batch))

    def absent(self, users: Iterable[str]) -> list[str]:
        """Which of these the core does not hold; the others count as used."""
        return [user for user in users if not self._memory.users.touch(user)]

    def restore(self, histories: Mapping[str, list[PastEvent]]) -> None:
        """Hold these users, with their past events, oldest first. The models know those already."""
        absent = [user for user in histories if user not in self._memory.users]
        for at in range(0, len(absent), PART):
            users = absent[at : at + PART]
            self._recall(users, [since_forget(histories[u][-self.history_limit :]) for u in users])

    def _recall(self, users: list[str], pasts: list[list[PastEvent]]) -> None:
        memory, pages = self._memory, sum(-(-len(past) // PAGE) for past in pasts)
        memory.make_room(users=len(users), pages=pages)
        columns = past_columns(memory, users, pasts)
        done = recall(memory.tables, *columns, self.history_limit)
        assert done, "make_room made room"

    # -- events ------------------------------------------------------------------------------

    def step(self, batch: list[Delivery], now_ms: int) -> Step:
        """Score, measure, learn; then a slate for each user of the batch.

        Users that `missing` named and nobody restored are new. `now_ms` (epoch milliseconds) only
        refuses events from the future. A fault of one event never touches another.
        """
        step = Step()
        valid = []
        for d in batch:
            fault = event_fault(d.event, now_ms)
            if fault:
                step.rejects.append(Reject(d, f"invalid: {fault}"))
            else:
                valid.append(d)
        popular: list[float] = []
        for at in range(0, len(valid), PART):
            popular += self._learn(valid[at : at + PART], step)
        if step.ranks:
            ranks = np.array([rank for _, rank in step.ranks])
            ts = step.ranks[-1][0].event.ts
            step.metrics += self._quality.update(ranks, np.array(popular), ts)
        self._make_slates(step)
        step.metrics += self._aside.metrics
        self._aside = Step()
        if self._teaching is not None:
            step.turns, self._teaching.turns = self._teaching.turns, []
        if self._exchange is not None:
            step.rankers, step.weights = self._exchange.word(), self._new_weights()
        self._release_forgotten(valid, step)
        return step

    def _release_forgotten(self, batch: list[Delivery], step: Step) -> None:
        users = {d.event.user_id for d in batch if d.event.type == "forget"}
        users |= {
            reject.delivery.event.user_id
            for reject in step.rejects
            if reject.reason == OF_A_FORGOTTEN_PAST
        }
        self._release_empty(users)

    def _release_empty(self, users: Iterable[str]) -> None:
        """Let go of those of whom nothing but a `forget` is left."""
        memory = self._memory
        self.release(u for u in users if only_forget(memory.tables, memory.users.get(u)))

    def release(self, users: Iterable[str]) -> None:
        """Hold these no longer, not even by name: `missing` names them when they return."""
        for user in users:
            if user in self._memory.users:
                self._memory.drop_user(user)

    def held(self) -> list[str]:
        """The users who are held."""
        return self._memory.users.ids_held()

    # -- other workers -----------------------------------------------------------------------

    def hear(self, events: list[Told]) -> None:
        """Count events that another worker learned: nothing is scored, nobody gets a slate."""
        memory = self._memory
        for first in range(0, len(events), PART):
            part = events[first : first + PART]
            columns, at = columns_of(memory, part, ()), 0
            while at < len(part):
                begin = at
                at, _ = advance(
                    memory.tables, memory.scratch, memory.sequences, memory.texts, columns, at,
                    self._block, self._lists, self.config.exclude_seen, self.history_limit,
                    min(self._until, self._tick + HEARD_AT_ONCE),
                )  # fmt: skip
                if self._teaching is not None:
                    self._teach(self._teaching, columns, begin, at, self._aside)
                self.pause()
        self._release_empty({event.user_id for event in events if event.type == "forget"})

    def heard_rankers(self, source: int, said: Rankers) -> None:
        """Move our rankers by what another worker has learned."""
        if self._exchange is not None:
            self._exchange.heard(source, said)

    def join(self) -> None:
        """What others had learned is learned already, from the journal."""
        if self._exchange is not None:
            self._exchange.join()

    def adopt(self, said: Weights) -> None:
        """Serve the encoder's new weights, which another worker trained."""
        memory = self._memory
        dense = dense_of(said, memory.sequences.dense)
        if self._teaching is None or dense is None:
            return
        slots = np.array([memory.items.get(item) for item in said.items], np.int64)
        vectors = np.frombuffer(said.vectors, np.float32).reshape(len(slots), -1)
        bias, held = np.frombuffer(said.bias, np.float32), slots >= 0
        if not all(np.isfinite(part).all() for part in (*dense, vectors, bias)):
            return  # bytes that were damaged: our weights stay
        made = Publication(said.version, dense, slots[held], vectors[held], bias[held], 0.0, 0)
        self._projection.learned(made.item)
        self._teaching.adopt(memory.sequences, made, self._adopted)

    def drop_users(self) -> None:
        """Hold nobody any more: others may have served them since."""
        for user in self._memory.users.ids_held():
            if not user.startswith(SHADOW):
                self._memory.drop_user(user)

    def _changed(self, q: Sequences, slots: np.ndarray) -> None:
        self._nearest.publish(q, np.union1d(slots, self._project(q, slots)))
        if self._exchange is not None:
            self._untold.append(slots)

    def _adopted(self, q: Sequences, slots: np.ndarray) -> None:
        self._nearest.publish(q, np.union1d(slots, self._project(q, slots[:0])))

    def _project(self, q: Sequences, learned: np.ndarray) -> np.ndarray:
        """Items that were not learned, and have vectors now that come from their texts."""
        memory = self._memory
        if not self.config.encoder.project:
            return learned[:0]
        rows = memory.items.rows
        return self._projection.apply(memory.tables, memory.texts, q, rows, learned, self.pause)

    def _new_weights(self) -> Weights | None:
        if not self._untold or self._teaching is None or self.config.encoder.follows:
            return None
        slots, self._untold = np.unique(np.concatenate(self._untold)), []
        memory = self._memory
        ids, learned = memory.items.ids, self._projection.is_learned(memory.items.rows)
        return weights_of(memory.sequences, self._teaching.version, slots, ids, learned)

    def _learn(self, batch: list[Delivery], step: Step) -> list[float]:
        """Score, then learn; the targets' ranks by popularity."""
        columns = columns_of(self._memory, [d.event for d in batch], self.config.targets)
        at, popular = 0, []
        while at < len(batch):
            first, begin = self._lists, at
            at, self._lists = advance(
                self._memory.tables, self._memory.scratch, self._memory.sequences,
                self._memory.texts, columns, at, self._block, first, self.config.exclude_seen,
                self.history_limit, min(self._until, self._tick + AT_ONCE),
            )  # fmt: skip
            if self._lists > first:
                owners = [batch[e] for e in self._block.owner[first : self._lists].tolist()]
                step.ranks.extend(zip(owners, self._score(first).tolist(), strict=True))
                popular += self._block.popular[first : self._lists].tolist()
            if self._lists == self.config.block:
                self._end_block()
            if self._teaching is not None:
                self._teach(self._teaching, columns, begin, at, step)
            self.pause()
        self._sort_out(batch, columns, step)
        return popular

    @property
    def _tick(self) -> int:
        return int(self._memory.tables.clock[TICK])

    @property
    def _until(self) -> int:
        """The number of events to stop at."""
        return self._teaching.until if self._teaching is not None else 1 << 62

    def _teach(self, teaching: Teaching, columns: Batch, begin: int, end: int, step: Step) -> None:
        """Note events begin..end of a batch for the next lesson; take a turn when it is time."""
        t = self._memory.tables
        part = Batch(*(column[begin:end] for column in columns))
        new = (part.status == NEW) & ((part.role & INTERACTION) != 0)
        new &= ~(part.sentiment <= NEGATIVE)  # it is not to lead anybody there
        for e in np.flatnonzero((part.status == NEW) & (part.kind == FORGET)):
            new[:e] &= part.user[:e] != part.user[e]  # the user's key is another one since
        c = Batch(*(column[new] for column in part))
        teaching.note(t.user_key[c.user], t.key[c.item], c.kind, c.price, c.ts)
        if t.clock[TICK] >= teaching.until:
            ts = int(columns.ts[end - 1])
            step.metrics += teaching.turn(self._memory.sequences, t.key, ts, self._changed)

    def _score(self, first: int) -> np.ndarray:
        block, n = self._block, self._lists
        start = block.start[: n + 1]
        self._contest.score(block.x, start, first, block.proposed[:n])
        ranks = self._contest.judge(
            start, first, block.proposed[:n], block.place[:n], block.unproposed[:n]
        )
        if self._teaching is not None and self._teaching.version:
            place, proposed = block.place[first:n], block.proposed[first:n]
            ranked = (place >= 0) & (place < start[first:n] + proposed)
            self._teaching.saw(ranked & (block.x[place, RANK] > TOP_10), ranks <= 10)
        return ranks

    def _end_block(self) -> None:
        block = self._block
        self._contest.learn(block.x, block.start, block.proposed, block.place, block.unproposed)
        self._lists = 0

    def _sort_out(self, batch: list[Delivery], columns: Batch, step: Step) -> None:
        for d, status in zip(batch, columns.status.tolist(), strict=True):
            if status == NEW:
                step.accepted.append(d)
            elif status == DUPLICATE:
                step.duplicates += 1
            elif status == TOO_LATE:
                reason = f"the {self.history_limit} events kept of this user"
                step.rejects.append(Reject(d, f"too_late: ts={d.event.ts} is older than {reason}"))
            elif status == FORGOTTEN:
                step.rejects.append(Reject(d, OF_A_FORGOTTEN_PAST))
            else:
                assert status == FULL
                step.rejects.append(Reject(d, "full: no page is left for the user's history"))

    # -- slates ------------------------------------------------------------------------------

    def _make_slates(self, step: Step) -> None:
        newest = {d.event.user_id: d for d in step.accepted if d.event.type != "impression"}
        due = [d for d in newest.values() if d.event.type != "forget"]
        asked = [(d.event.user_id, d.event.ts, d.event.session_id or "") for d in due]
        for d, recommendations in zip(due, self._slates.make(asked, pause=self.pause), strict=True):
            step.slates.append(slate_row(d, self.model_version, recommendations))
        if self.config.encoder.vectors and self._teaching is not None and self._teaching.version:
            version = self._teaching.version
            step.vectors += vector_rows(self._memory, version, due, self._slates.queries, step)

    def recommend(
        self, user_id: str, now_ms: int, k: int | None = None
    ) -> tuple[Recommendation, ...]:
        """A slate for a user right now, without an event. Unknown users get what is popular."""
        return self._slates.make([(user_id, now_ms, "")], k)[0]

    def search(
        self, query: TextVector, text: str, lexical: Mapping[str, float], user_id: str,
        now_ms: int, k: int | None = None, personal: bool = True,
    ) -> tuple[Recommendation, ...]:  # fmt: skip
        """What fits a query: see `online.searching`. Changes nothing."""
        chosen = k or self.config.k
        return self._search.search(query, text, lexical, user_id, now_ms, chosen, personal)

    def similar(
        self, item_id: str, by: str, now_ms: int, k: int | None = None
    ) -> tuple[Recommendation, ...]:
        """Items like one, by "text", by "behaviour", or "both": see `online.similarity`."""
        return similar(self._memory, item_id, by, now_ms, k or self.config.k)

    # -- state -------------------------------------------------------------------------------

    @property
    def model_version(self) -> str:
        """Which state of the rankers wrote a row: the lists that they have learned from."""
        encoder = f"-encoder-{self._teaching.version}" if self._teaching is not None else ""
        return f"ranker-{self._contest.learned}{encoder}"

    def quality(self) -> dict[str, Any]:
        """Prequential totals so far, beside popularity's, and the state of the contest."""
        weights = zip(self._contest.rankers, self._contest.weights.tolist(), strict=True)
        return {
            "targets": self._quality.targets,
            **self._quality.totals(),
            "coverage": self._memory.coverage(),
            "events": self._tick,  # interactions, others' among them
            "users": len(self._memory.users),
            "items": len(self._memory.items),
            "drifts": self._contest.drifts,
            **{f"weight_{ranker.name}": weight for ranker, weight in weights},
            **self._encoder_figures(),
        }

    def _encoder_figures(self) -> dict[str, Any]:
        teaching = self._teaching
        if teaching is None:
            return {}
        return {
            "encoder_version": teaching.version,
            "encoder_hr@10": teaching.hit_rate,
            "encoder_rollbacks": teaching.rollbacks,
            "encoder_rebuilt": rebuilt(self._memory.sequences)[0],
        }

    def state(self) -> State:
        """Everything that was learned, between two steps, but for the trainer's own part.

        Its arrays are the core's: write them down before anything else is asked of it.
        """
        return {
            "memory": self._memory.state(),
            "contest": self._contest.state(),
            "quality": self._quality.state(),
            "block": {**self._block._asdict(), "lists": self._lists},
            "teaching": self._teaching.state() if self._teaching is not None else None,
            "exchange": self._exchange.state() if self._exchange is not None else None,
            "projection": self._projection.state(),
        }

    def save_trainer(self, place: str) -> bool:
        """Have the trainer keep its part of the state under that name; False without one."""
        return self._teaching is not None and self._teaching.save(place)

    def resume(self, state: State, place: str) -> bool:
        """Be as when `state` was taken and the trainer's part was kept at `place`; before any step.

        False when the encoder is of another shape now, or was off: it begins anew.
        """
        fits = self._memory.restore(state["memory"])
        self._contest.restore(state["contest"])
        self._quality.restore(state["quality"])
        if self._exchange is not None:
            if state["exchange"] is not None:
                self._exchange.restore(state["exchange"])
            else:
                self._exchange.join()
        if "projection" in state:
            same = state["memory"].get("text_model") == self.config.text.model
            self._projection.restore(state["projection"], fits and same)
        block = state["block"]
        if block["x"].shape == self._block.x.shape:
            for name, array in self._block._asdict().items():
                array[:] = block[name]
            self._lists = block["lists"]
        if self._teaching is None or not fits or state["teaching"] is None:
            return self._teaching is None
        self._teaching.restore(state["teaching"], place)
        return True

    def follow(self, turns: Iterable[Turn]) -> None:
        """Let the encoder's coming turns go as these did: for a replay of what was live."""
        if self._teaching is not None:
            self._teaching.follow(turns)

    def warm_up(self) -> None:
        """Compile everything now: minutes the first time, then kept on disk."""
        rehearse(self.config.exclude_seen)
