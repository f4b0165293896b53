"""The rankers: a row of features becomes one score, learned listwise from every event.

Two learners compete on the same lists, a linear one (River's optimiser) and a small neural one;
`online.contest` mixes them. Both minimise the softmax loss of the item that the user took against
all others of its list, weighted by how near that item already was to the top: a list whose target
lies at rank 300 teaches little about the first ten, and in shops most lists are of that kind. With
weights 1 / (1 + (rank / 30)²) NDCG@10 rose by 15 % (MovieLens 100k) to 60 % (Online Retail) over
the plain loss. The idea is that of truncated, position-aware losses (Burges 2010, "From RankNet to
LambdaRank to LambdaMART"; Cao et al. 2007, "ListNet").
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pandas as pd
from river import optim, preprocessing

from online.features import LOGS, NAMES, SHARES, TEXT_FEATURES, TEXT_FIRST, widened
from online.listwise import gradient, softmax
from online.network import adam, backward, forward, linear_scores, losses, standardise
from online.state import State

Array = np.ndarray
PRIOR = [*range(LOGS, LOGS + SHARES), NAMES.index("text_share")]  # what helps before any lesson
Moments = tuple[float, Array, Array]  # rows, and their mean and variance by feature


@dataclass(frozen=True)
class RankerConfig:
    hidden: int = 64  # units of the neural ranker
    neural_rate: float = 2e-3  # Adam's step
    average: float = 0.98  # what the averaged weights keep of themselves in a step
    linear_rate: float = 0.05  # AdaGrad's step
    prior: float = 0.25  # first weight of what is a share of the list's largest
    rank_scale: float = 30.0  # rank at which a list counts half


class Ranker(Protocol):
    """A learner is two verbs, score and learn."""

    name: str

    def score(self, x: Array, start: Array, out: Array) -> None:
        """Scores of the lists that `start` (L + 1,) bounds in x (N, FEATURES) f4, into out (N,)."""
        ...

    def losses(self, x: Array, base: Array, group: Array, out: Array) -> None:
        """What each row's score loses without each group of features: see `network.losses`."""
        ...

    def learn(self, x: Array, start: Array, p: Array, place: Array, weight: Array) -> None:
        """One step for a block of L lists.

        p: (N,) f4, the lists' probabilities by this ranker's scores; place: (L,) the row of each
        list's target, -1 none; weight: (L,) f4, how much a list counts.
        """
        ...

    def weights(self) -> list[Array]:
        """What learning moves."""
        ...

    def move(self, by: list[Array]) -> None:
        """Move the weights by what was learned elsewhere."""
        ...

    def state(self) -> State:
        """Everything that it learned; `restore` takes it back."""
        ...

    def restore(self, state: State) -> None: ...


class Scaler:
    """Logarithms of the first columns, then zero mean and unit variance, within ±5.

    Mean and variance are River's StandardScaler over a sample of all rows; it learns often at
    first and seldom later, since they hardly move any more.
    """

    def __init__(self) -> None:
        self._statistics = preprocessing.StandardScaler()
        self._blocks = 0
        self._others: list[Moments] = []
        self.scale = np.ones(len(NAMES), np.float32)
        self.offset = np.zeros(len(NAMES), np.float32)

    def prepare(self, x: Array) -> None:
        """Take the logarithms, in place."""
        logs = x[:, :LOGS]
        np.log(logs, out=logs)

    def learn(self, x: Array) -> None:
        """Learn from prepared rows. What was scaled before stays as it was."""
        self._blocks += 1
        if self._blocks > 64 and self._blocks % 32:
            return
        sample = pd.DataFrame(x[::7].astype(np.float64), columns=NAMES)
        self._statistics.learn_many(sample)
        self._settle()

    def seen(self) -> Moments:
        """Rows, and their mean and variance (FEATURES,) f8."""
        s = self._statistics
        mean = np.array([s.means[name] for name in NAMES])
        return float(s.counts[NAMES[0]]), mean, np.array([s.vars[name] for name in NAMES])

    def pool(self, others: list[Moments]) -> None:
        """Scale by what these have seen, too, from now on."""
        self._others = others
        self._settle()

    def _settle(self) -> None:
        """Mean and variance of several samples together (Chan et al. 1979)."""
        rows, mean, variance = self.seen()
        if not rows and not self._others:
            return  # nothing is known: as it came
        if self._others:
            samples = [(rows, mean, variance), *self._others]
            total = max(sum(n for n, _, _ in samples), 1.0)
            mean = np.sum([n * m for n, m, _ in samples], axis=0) / total
            variance = np.sum([n * (v + (m - mean) ** 2) for n, m, v in samples], axis=0) / total
        deviation = np.sqrt(variance + 1e-4)
        varied = variance > 1e-9  # what was always the same says nothing, whatever it is next
        self.scale = np.where(varied, 1.0 / deviation, 0.0).astype(np.float32)
        self.offset = np.where(varied, mean / deviation, 0.0).astype(np.float32)

    def state(self) -> State:
        s = self._statistics
        kept = {name: dict(getattr(s, name)) for name in ("counts", "means", "vars")}
        return {"statistics": kept, "blocks": self._blocks, "scale": self.scale,
                "offset": self.offset}  # fmt: skip

    def restore(self, state: State) -> None:
        for name, values in state["statistics"].items():
            getattr(self._statistics, name).update(values)
        self._blocks = state["blocks"]
        self.scale, self.offset = widened(state["scale"]), widened(state["offset"])

    def apply(self, x: Array, first: int, out: Array) -> None:
        """Scale prepared rows from `first` on into the same rows of `out`."""
        standardise(x, first, len(x), self.scale, self.offset, out)


class LinearRanker:
    """score = w · x, with River's AdaGrad (Duchi et al. 2011)."""

    name = "linear"

    def __init__(self, config: RankerConfig) -> None:
        self._optimizer = optim.AdaGrad(config.linear_rate)
        self._weights: Any = dict.fromkeys(NAMES, 0.0)
        for column in PRIOR:
            self._weights[NAMES[column]] = config.prior
        self._vector = self._as_vector()

    def _as_vector(self) -> Array:
        return np.fromiter(self._weights.values(), np.float32, len(NAMES))

    def score(self, x: Array, start: Array, out: Array) -> None:
        linear_scores(x, int(start[0]), int(start[-1]), self._vector, out)

    def losses(self, x: Array, base: Array, group: Array, out: Array) -> None:
        none = np.zeros(0, np.float32)
        losses(x, base, group, none.reshape(len(base), 0), none, none, self._vector, out)

    def learn(self, x: Array, start: Array, p: Array, place: Array, weight: Array) -> None:
        slope = np.empty(len(x), np.float32)
        gradient(p, start, place, weight, slope)
        by_name: Any = dict(zip(NAMES, (slope @ x).tolist(), strict=True))
        self._weights = self._optimizer.step(self._weights, by_name)
        self._vector = self._as_vector()

    def weights(self) -> list[Array]:
        return [self._vector]

    def move(self, by: list[Array]) -> None:
        moved = (self._vector + by[0]).astype(float).tolist()
        self._weights = dict(zip(NAMES, moved, strict=True))
        self._vector = self._as_vector()

    def state(self) -> State:
        optimizer = {"g2": dict(self._optimizer.g2), "steps": self._optimizer.n_iterations}
        return {"weights": dict(self._weights), **optimizer}

    def restore(self, state: State) -> None:
        self._weights = {name: state["weights"].get(name, 0.0) for name in NAMES}
        self._optimizer.g2.update(state["g2"])
        self._optimizer.n_iterations = state["steps"]
        self._vector = self._as_vector()


def _first_weights(rng: np.random.Generator, hidden: int) -> Array:
    """(FEATURES, hidden); without texts the rest is what it would be if texts had no features."""
    others = len(NAMES) - TEXT_FEATURES
    texts = rng.spawn(1)[0].normal(size=(TEXT_FEATURES, hidden))
    weights = np.insert(rng.normal(size=(others, hidden)), TEXT_FIRST, texts, axis=0)
    first: Array = (weights / np.sqrt(others)).astype(np.float32)
    return first


class NeuralRanker:
    """score = v · relu(W x + b) + u · x, with Adam (Kingma and Ba 2015).

    Scores come from a running average of the weights (Polyak and Juditsky 1992, "Acceleration of
    stochastic approximation by averaging"): steps large enough to follow the stream leave the
    newest weights noisy. Learning goes on from the newest ones.
    """

    _KEPT = ("_parameters", "_average", "_mean", "_square")

    def __init__(
        self,
        config: RankerConfig,
        rng: np.random.Generator,
        name: str = "neural",
        blind: int = 0,
    ) -> None:
        """blind: how many of the last features it does not see."""
        self.name, self._seen = name, len(NAMES) - blind
        width, hidden = len(NAMES), config.hidden
        skip = np.zeros(width, np.float32)
        skip[PRIOR] = config.prior
        skip[self._seen :] = 0.0
        self._rate, self._keep = config.neural_rate, config.average
        self._parameters = [
            _first_weights(rng, hidden),
            np.zeros(hidden, np.float32),
            (rng.normal(size=hidden) * 0.1 / np.sqrt(hidden)).astype(np.float32),
            skip,
        ]
        self._parameters[0][self._seen :] = 0.0
        self._average = [p.copy() for p in self._parameters]
        self._gradients = [np.zeros_like(p) for p in self._parameters]
        self._mean = [np.zeros_like(p) for p in self._parameters]
        self._square = [np.zeros_like(p) for p in self._parameters]
        self._steps = 0

    def score(self, x: Array, start: Array, out: Array) -> None:
        self._forward(self._average, x, start, out)

    def losses(self, x: Array, base: Array, group: Array, out: Array) -> None:
        losses(x, base, group, *self._average, out)

    def _forward(self, weights: list[Array], x: Array, start: Array, out: Array) -> Array:
        hidden = np.empty((len(x), len(weights[1])), np.float32)
        forward(x, start, *weights, hidden, out)
        return hidden

    def learn(self, x: Array, start: Array, p: Array, place: Array, weight: Array) -> None:
        newest, slope = np.empty(len(x), np.float32), np.empty(len(x), np.float32)
        hidden = self._forward(self._parameters, x, start, newest)
        softmax(newest, start, newest)
        gradient(newest, start, place, weight, slope)
        back = np.empty_like(hidden)
        backward(x, hidden, slope, self._parameters[2], back, *self._gradients)
        for unseen in (self._gradients[0], self._gradients[3]):
            unseen[self._seen :] = 0.0
        self._adam()

    def weights(self) -> list[Array]:
        return self._parameters

    def move(self, by: list[Array]) -> None:
        for parameter, average, each in zip(self._parameters, self._average, by, strict=True):
            parameter += each
            average += each

    def state(self) -> State:
        kept = {name.lstrip("_"): list(getattr(self, name)) for name in self._KEPT}
        return {"steps": self._steps, **kept}

    def restore(self, state: State) -> None:
        self._steps = state["steps"]
        for name in self._KEPT:
            w, b, v, u = state[name.lstrip("_")]
            setattr(self, name, [widened(w), b, v, widened(u)])

    def _adam(self) -> None:
        self._steps += 1
        rate = self._rate * np.sqrt(1 - 0.999**self._steps) / (1 - 0.9**self._steps)
        each = zip(self._parameters, self._mean, self._square, self._gradients, strict=True)
        for p, m, v, g in each:
            adam(p, m, v, g, rate)
        # a plain mean at first, so that the first weights do not linger
        new = np.float32(max(1.0 - self._keep, 1.0 / (1.0 + self._steps)))
        for average, p in zip(self._average, self._parameters, strict=True):
            average += new * (p - average)
