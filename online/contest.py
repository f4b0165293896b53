"""The contest: rankers learn from the same lists, and the better one gets the larger say.

The mixture is Hedge (Freund and Schapire 1997) over each ranker's recent loss 1 - NDCG@10, so that
a ranker that is added cannot cost quality for long. ADWIN (Bifet and Gavaldà 2007, River) watches
the mixture's loss; when it changes, the past losses are dropped and the contest opens again.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from river import drift

from online.features import FEATURES, SEQUENCE_FEATURES, TEXT_FEATURES
from online.listwise import ranks, softmax
from online.network import mix
from online.newcomers import MOST_EVERY, Newcomers
from online.ranker import Array, LinearRanker, NeuralRanker, Ranker, RankerConfig, Scaler
from online.state import State


@dataclass(frozen=True)
class ContestConfig:
    ranker: RankerConfig = field(default_factory=RankerConfig)
    eta: float = 0.1  # how sharply Hedge prefers
    memory: int = 1000  # lists after which a loss counts 1/e
    newcomers: int = 10  # one of so many places is for an item that nobody took yet; 0: none

    def __post_init__(self) -> None:
        if not 0 <= self.newcomers <= MOST_EVERY:
            raise ValueError(
                f"contest.newcomers={self.newcomers}: use 0 (none) or one of 1 to {MOST_EVERY}"
            )


def ndcg(rank: Array) -> Array:
    """NDCG@10 of one relevant item at each rank (1 = top)."""
    return np.where(rank <= 10, 1.0 / np.log2(1.0 + np.maximum(rank, 1.0)), 0.0)


class Contest:
    """Scores blocks of at most `rows` rows; `learn` ends the block.

    plain: a ranker that sees neither the sequence encoder nor the texts takes part, so that those
    cost nothing when they are not good for anything.
    """

    def __init__(
        self, config: ContestConfig, rows: int, rng: np.random.Generator, plain: bool
    ) -> None:
        self._config = config
        self.scaler = Scaler()
        self.rankers: list[Ranker] = [
            NeuralRanker(config.ranker, rng),
            LinearRanker(config.ranker),
        ]
        if plain:
            blind = SEQUENCE_FEATURES + TEXT_FEATURES
            self.rankers.append(NeuralRanker(config.ranker, rng, "plain", blind))
        self.newcomers = Newcomers(config.ranker, config.newcomers)
        self._loss = np.zeros(len(self.rankers))
        self._forget = np.exp(-1.0 / config.memory)
        self._x = np.zeros((rows, FEATURES), np.float32)
        self._p = np.zeros((len(self.rankers), rows), np.float32)
        self._mixed = np.zeros(rows, np.float32)
        self._drift = drift.ADWIN()
        self.drifts = 0
        self.learned = 0  # lists

    @property
    def _learners(self) -> list[Ranker]:
        return [*self.rankers, self.newcomers.ranker]

    @property
    def weights(self) -> Array:
        """Each ranker's say, (K,), summing to one."""
        w = np.exp(-self._config.eta * (self._loss - self._loss.min()))
        weights: Array = w / w.sum()
        return weights

    def score(self, raw: Array, start: Array, first: int, proposed: Array) -> Array:
        """Mixed scores (log-probabilities but for a constant) of lists first.. of the block.

        raw: (N, FEATURES) rows of all the block's lists so far, logarithms not yet taken in those
        from list `first` on (they are taken in place); start: (L + 1,) their bounds; proposed:
        (L,) how many rows of each are not the target's alone. Each list is
        a matrix product of its own, so that the bits of a score do not depend on its neighbours.
        """
        a, b = int(start[first]), int(start[-1])
        self.scaler.prepare(raw[a:b])
        self.scaler.apply(raw[:b], a, self._x)
        for ranker, p in zip(self.rankers, self._p, strict=True):
            ranker.score(self._x, start[first:], p)
            softmax(p, start[first:], p)
        mix(self._p, self.weights.astype(np.float32), a, b, self._mixed)
        shown = np.ones(b - a, np.bool_)
        last = start[first + 1 :] - 1
        shown[last[last >= start[first:-1] + proposed[first:]] - a] = False
        self.newcomers.lift(raw[a:b], self._x[a:b], start[first:], self._mixed[a:b], shown)
        return self._mixed[a:b]

    def predict(self, raw: Array, start: Array, shown: Array | None = None) -> Array:
        """Mixed scores (N,) of lists that will not be learned from: the policy's input.

        raw: (N, FEATURES) rows, untouched; start: (L + 1,) the lists' bounds; shown: (N,) which
        may be shown: newcomers among them have their places. None: nobody is moved up.
        """
        prepared, x = self._scaled(raw)
        mixed, p = np.zeros(len(x), np.float32), np.zeros((len(self.rankers), len(x)), np.float32)
        for ranker, row in zip(self.rankers, p, strict=True):
            ranker.score(x, start, row)
            softmax(row, start, row)
        mix(p, self.weights.astype(np.float32), 0, len(x), mixed)
        if shown is not None:
            self.newcomers.lift(prepared, x, start, mixed, shown)
        return mixed

    def _scaled(self, raw: Array) -> tuple[Array, Array]:
        """Rows with logarithms taken, and scaled."""
        prepared = raw.copy()
        self.scaler.prepare(prepared)
        x = np.empty_like(prepared)
        self.scaler.apply(prepared, 0, x)
        return prepared, x

    def contributions(self, raw: Array, base: Array, group: Array) -> Array:
        """By how much each row's mixed score falls when the features of a group are as in `base`.

        raw: (R, FEATURES) rows, and base: (FEATURES,), both before logarithms; group: (FEATURES,)
        of each feature, below 0 for none. Returns (R, groups): in a mixture of log-probabilities
        what is common to a row and to itself without a group cancels out.
        """
        _, x = self._scaled(np.concatenate([raw, base[None]]))
        fall = np.zeros((len(raw), int(group.max()) + 1), np.float32)
        out = np.empty_like(fall)
        for ranker, weight in zip(self.rankers, self.weights.astype(np.float32), strict=True):
            ranker.losses(x[:-1], x[-1], group, out)
            fall += weight * out
        return fall

    def judge(
        self, start: Array, first: int, proposed: Array, place: Array, unproposed: Array
    ) -> Array:
        """Ranks (L - first,) of the targets by the mixture; inf where there is nothing to rank."""
        out = np.zeros(len(place) - first)
        ranks(self._mixed, start[first:], proposed[first:], place[first:], unproposed[first:], out)
        return out

    def flat(self) -> Array:
        """The rankers' weights one after another, f4: a copy."""
        return np.concatenate([w.ravel() for r in self._learners for w in r.weights()])

    def add_flat(self, flat: Array) -> None:
        """Move the weights by so much, as `flat` gives them."""
        at = 0
        for ranker in self._learners:
            moves = []
            for w in ranker.weights():
                moves.append(flat[at : at + w.size].reshape(w.shape))
                at += w.size
            ranker.move(moves)

    def state(self) -> State:
        return {
            "scaler": self.scaler.state(),
            "rankers": {ranker.name: ranker.state() for ranker in self.rankers},
            "newcomers": self.newcomers.state(),
            "loss": self._loss,
            # of the lists that are not learned yet
            "x": self._x,
            "p": self._p,
            "mixed": self._mixed,
            "drift": self._drift._helper.__getstate__(),
            "drifts": self.drifts,
            "learned": self.learned,
        }

    def restore(self, state: State) -> None:
        """Be as when `state` was taken. Rankers that it does not know begin anew."""
        self.scaler.restore(state["scaler"])
        kept = state["rankers"]
        for ranker in self.rankers:
            if ranker.name in kept:
                ranker.restore(kept[ranker.name])
        if "newcomers" in state:
            self.newcomers.restore(state["newcomers"])
        if len(state["loss"]) == len(self._loss):
            self._loss[:] = state["loss"]
        if state["x"].shape == self._x.shape and state["p"].shape == self._p.shape:
            self._x[:], self._p[:], self._mixed[:] = state["x"], state["p"], state["mixed"]
        self._drift._helper.__setstate__(state["drift"])
        self.drifts, self.learned = state["drifts"], state["learned"]

    def learn(
        self, raw: Array, start: Array, proposed: Array, place: Array, unproposed: Array
    ) -> None:
        """Learn from the whole block, one step for each ranker, and judge them."""
        n = int(start[-1])
        x, rank = self._x[:n], np.zeros(len(place))
        known = int((place >= 0).sum())
        if not known:
            return
        for k, ranker in enumerate(self.rankers):
            ranks(self._p[k], start, proposed, place, unproposed, rank)
            weight = 1.0 / (1.0 + (rank / self._config.ranker.rank_scale) ** 2)
            ranker.learn(x, start, self._p[k, :n], place, weight.astype(np.float32))
            self._loss[k] = self._loss[k] * self._forget ** len(place) + (1.0 - ndcg(rank)).sum()
        self.newcomers.learn(raw[:n], x, start, proposed, place)
        self.scaler.learn(raw[:n])
        self.learned += len(place)
        self._watch(start, proposed, place, unproposed)

    def _watch(self, start: Array, proposed: Array, place: Array, unproposed: Array) -> None:
        rank = self.judge(start, 0, proposed, place, unproposed)
        self._drift.update(float(1.0 - ndcg(rank).mean()))
        if self._drift.drift_detected:
            self.drifts += 1
            self._loss[:] = 0.0
