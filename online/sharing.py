"""What workers learn from each other: events of others' users, rankers, the encoder's weights.

Users are divided among workers, what is known of items is not. So each worker tells the others:

- its events, which they count as their own, but for scoring: the item statistics of all are those
  of all events, a moment later (`Recommender.hear`);
- how its rankers moved, now and then: all move by what each learned (Dean et al. 2012, "Large scale
  distributed deep networks");
- new weights of the sequence encoder, which one of them trains from the events of all.
"""

from __future__ import annotations

import numpy as np

from online.contest import Contest
from online.ranker import Moments
from online.sequence import NOWHERE, Dense, Sequences
from online.state import State
from online.teaching import Lesson, Publication
from online.told import Rankers, Weights

Array = np.ndarray
REFRESHED = 32  # publications in which every item's vector is told once more


class RankerExchange:
    """Our rankers' weights are those that all began with, and what each worker added to them.

    What a worker tells is all that it ever added. So the newest word of each counts, a word that
    comes twice changes nothing, and workers who heard the same have the same weights: a state-based
    counter (Shapiro et al. 2011, "Conflict-free replicated data types") of gradient steps.
    """

    def __init__(self, contest: Contest, every: int) -> None:
        """every: lists between two words of ours."""
        self._contest, self._every = contest, every
        self._told = contest.learned
        self._base = contest.flat()  # as they were when we last looked
        self._ours = np.zeros_like(self._base)  # what we added
        self._theirs: dict[int, Array] = {}  # what each of the others did
        self._moments: dict[int, Moments] = {}
        self._joined = False  # what others had added is in ours already

    def heard(self, source: int, said: Rankers) -> None:
        """Take over what another worker has learned."""
        theirs = np.frombuffer(said.weights, np.float32)
        if theirs.shape != self._base.shape or not np.isfinite(theirs).all():
            return  # it is of another version
        before = self._theirs.get(source)
        if before is not None or not self._joined:
            more = theirs - before if before is not None else theirs
            self._contest.add_flat(more)
            self._base += more
        self._theirs[source] = theirs
        mean, variance = np.frombuffer(said.mean), np.frombuffer(said.variance)
        self._moments[source] = said.rows, mean, variance
        self._contest.scaler.pool(list(self._moments.values()))

    def word(self) -> Rankers | None:
        """What to tell the others now; None: it is not time yet."""
        if self._contest.learned - self._told < self._every:
            return None
        self._told = self._contest.learned
        now = self._contest.flat()
        self._ours += now - self._base
        self._base = now
        rows, mean, variance = self._contest.scaler.seen()
        return Rankers(self._ours.tobytes(), rows, mean.tobytes(), variance.tobytes())

    def join(self) -> None:
        """We learned what all others did, from the journal: only what they add from now on counts.

        To be called before anything was heard.
        """
        self._joined = True
        self._base, self._told = self._contest.flat(), self._contest.learned

    def state(self) -> State:
        return {
            "told": self._told,
            "base": self._base,
            "ours": self._ours,
            "theirs": {str(source): added for source, added in self._theirs.items()},
            "moments": {str(source): list(seen) for source, seen in self._moments.items()},
            "joined": self._joined,
        }

    def restore(self, state: State) -> None:
        """Be as when `state` was taken; after the contest was restored."""
        if state["base"].shape != self._base.shape:  # of another release
            self.join()
            return
        self._told, self._joined = state["told"], state["joined"]
        self._base, self._ours = state["base"], state["ours"]
        self._theirs = {int(source): added for source, added in state["theirs"].items()}
        self._moments = {int(source): tuple(seen) for source, seen in state["moments"].items()}
        self._contest.scaler.pool(list(self._moments.values()))


def weights_of(q: Sequences, version: int, slots: Array, ids: list[str], learned: Array) -> Weights:
    """The serving weights as they are told, with the vectors of some items and, in turn, of others.

    slots: (N,) items whose vectors are new; ids: of every slot; learned: (I,) of which vectors not
    from texts alone.
    """
    turn = np.arange(version % REFRESHED, len(ids), REFRESHED)
    told = np.union1d(slots[slots < len(ids)], turn[(q.bias[turn] != NOWHERE) & learned[turn]])
    return Weights(
        version,
        [weights.tobytes() for weights in q.dense],
        [ids[slot] for slot in told.tolist()],
        q.vector[told].tobytes(),
        q.bias[told].tobytes(),
    )


def dense_of(said: Weights, like: Dense) -> Dense | None:
    """The weights that were told; None when they are of another shape."""
    if len(said.dense) != len(like) or any(
        len(raw) != ours.nbytes for raw, ours in zip(said.dense, like, strict=True)
    ):
        return None
    arrays = (
        np.frombuffer(raw, np.float32).reshape(ours.shape)
        for raw, ours in zip(said.dense, like, strict=True)
    )
    return Dense(*arrays)


class Follower:
    """The trainer of a worker that does not train: new weights come from the one that does."""

    def idle(self) -> bool:
        return False

    def begin(self, lesson: Lesson) -> None:
        raise AssertionError("a follower gives no lessons")

    def ready(self) -> bool:
        return False

    def finish(self) -> Publication:
        raise AssertionError("a follower gives no lessons")

    def start(self, keys: Array) -> Publication:
        raise AssertionError("a follower starts from what it is told")

    def roll_back(self, number: int) -> None:
        pass

    def save(self, place: str) -> bool:
        return False

    def resume(self, place: str, number: int, busy: bool) -> None:
        pass

    def close(self) -> None:
        pass
