"""The rank of every target event of a backtest: kept, stored and compared in pairs."""

from __future__ import annotations

from array import array
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from online.step import Step
from streams.logformat import LogError

K = 10


class Difference(NamedTuple):
    """A mean difference over pairs and its 95% interval's half width."""

    name: str
    mean: float
    margin: float
    pairs: int


class Ranks:
    """Ranks by event, in the order of the replay. A miss is infinity."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.ranks = array("d")

    def add(self, step: Step) -> None:
        """Take over the ranks that the core reports for a batch: (delivery, rank) pairs."""
        for delivery, rank in getattr(step, "ranks", None) or ():
            self.events.append(delivery.event.event_id)
            self.ranks.append(float("inf") if rank is None else float(rank))

    def write(self, path: Path) -> None:
        table = pa.table({"event_id": self.events, "rank": np.asarray(self.ranks)})
        pq.write_table(table, path)

    @classmethod
    def read(cls, path: Path) -> Ranks:
        """Raises LogError if `path` holds no ranks."""
        try:
            table = pq.read_table(path, columns=["event_id", "rank"])
        except (pa.ArrowException, OSError) as e:
            raise LogError(
                f"{path} holds no ranks ({str(e).splitlines()[0]}): write them with"
                " freshrec backtest --ranks"
            ) from e
        out = cls()
        out.events = table.column("event_id").to_pylist()
        out.ranks = array("d", table.column("rank").to_pylist())
        return out

    def differences(self, other: Ranks) -> list[Difference]:
        """Ours minus theirs over the events that both ranked; empty if there are none."""
        theirs = dict(zip(other.events, other.ranks, strict=True))
        pairs = [
            (rank, theirs[event])
            for event, rank in zip(self.events, self.ranks, strict=True)
            if event in theirs
        ]
        if not pairs:
            return []
        ours, others = np.array(pairs).T
        return [
            _difference(name, gain(ours) - gain(others))
            for name, gain in (("hr@10", _hit), ("ndcg@10", _ndcg), ("mrr@10", _mrr))
        ]


def _difference(name: str, values: np.ndarray[Any, Any]) -> Difference:
    spread = float(values.std(ddof=1)) if len(values) > 1 else 0.0
    return Difference(name, float(values.mean()), 1.96 * spread / len(values) ** 0.5, len(values))


def _hit(rank: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return (rank <= K).astype(float)


def _ndcg(rank: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.where(rank <= K, 1 / np.log2(rank + 1), 0.0)


def _mrr(rank: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.where(rank <= K, 1 / rank, 0.0)
