"""One step of learning: a mini-batch of sequences moves the model and the rows that it used."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from encoders.config import Shape, TrainingConfig
from encoders.devices import Device
from encoders.loss import sampled_softmax_loss, softmax_loss, vectors_of
from encoders.model import SequenceModel
from encoders.replay import Windows
from encoders.table import BETAS, Table


class Learner:
    """A model, the items' table, and the optimiser of both."""

    def __init__(self, shape: Shape, config: TrainingConfig, device: Device) -> None:
        torch.manual_seed(config.seed)
        self.shape, self.config, self.device = shape, config, device
        self.slowed = 1.0  # what the steps are multiplied by
        self.model = SequenceModel(shape, config.dropout, config.sharpness).to(device.torch)
        self._forward = device.compiled(self.model) if config.compiled else self.model
        self.optimizer = torch.optim.Adam(self.model.parameters(), config.rate, betas=BETAS)
        self.table = Table(config.rows, shape.width, device.torch, config.seed)
        self._rng = np.random.default_rng(config.seed + 1)

    def step(
        self, windows: Windows, rows: np.ndarray,
        before: Callable[[np.ndarray], None] = lambda used: None,
    ) -> float:  # fmt: skip
        """Learn to tell each event of the sequences from those before it.

        rows: (B, T) of the events' items in the table, -1 for one that has none. `before` is told
        the rows that are about to change. Returns the loss; nan when nothing was learned, because
        there was nothing to learn or because loss or gradient was not finite.
        """
        wanted = windows.valid[:, :-1] & (rows[:, 1:] >= 0)
        if not wanted.any():
            return math.nan
        used, negative, log_chance = self._choose(rows, rows[:, 1:][wanted])
        values = self.table.values[self.device.take(used)].requires_grad_()
        loss = self._loss(windows, rows, wanted, used, values, negative, log_chance)
        self.optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)
        slope = values.grad
        assert slope is not None
        if not (torch.isfinite(loss) and torch.isfinite(norm) and slope.isfinite().all()):
            return math.nan
        before(used)
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.rate * self.slowed
        self.optimizer.step()
        self.table.learn(self.device.take(used), slope, self.config.row_rate * self.slowed)
        return float(loss.detach())

    def _choose(
        self, rows: np.ndarray, targets: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Rows that the step uses; the negatives among them, and the log of their chances.

        All rows when there are few items (no chances then); else some of the negatives are items
        of the mini-batch, which come as often as they are taken, and the others any items.
        """
        table, config = self.table, self.config
        given = np.flatnonzero(table.key >= 0)
        if len(given) <= 2 * config.negatives:
            return given, given, None
        often = round(config.negatives * config.popular)
        seldom = config.negatives - often
        picked = targets[self._rng.integers(0, len(targets), often)]
        uniform = given[self._rng.integers(0, len(given), seldom)]
        negative = np.unique(np.concatenate([picked, uniform]))
        used = np.unique(np.concatenate([negative, rows[rows >= 0]]))
        chance = often * table.count[negative] / table.count[given].sum() + seldom / len(given)
        log_chance = np.log(np.minimum(chance, 1.0)).astype(np.float32)
        return given if config.dense else used, negative, log_chance

    def _loss(
        self, windows: Windows, rows: np.ndarray, wanted: np.ndarray, used: np.ndarray,
        values: Tensor, negative: np.ndarray, log_chance: np.ndarray | None,
    ) -> Tensor:  # fmt: skip
        take, place = self.device.take, np.zeros(len(self.table.key), np.int64)
        place[used] = np.arange(len(used))
        with self.device.autocast():
            asked = wanted[windows.valid[:, :-1]]
            queries = self.queries(windows, rows, values, place)[take(asked)]
            target = take(place[rows[:, 1:][wanted]])
            if log_chance is None:
                return softmax_loss(queries, values, target)
            others, chance = take(place[negative]), take(log_chance)
            return sampled_softmax_loss(queries, values, target, others, chance)

    def queries(
        self, windows: Windows, rows: np.ndarray, values: Tensor, place: np.ndarray
    ) -> Tensor:
        """(N, D): what is asked for at the moment of each event but a sequence's first, where
        `windows.valid[:, :-1]`, sequence by sequence.

        values: rows of the table, of which place[row] is the one of that row. Nothing is computed
        for padding: the sequences lie one after another.
        """
        valid = windows.valid[:, :-1]
        first = valid.copy()
        first[:, 1:] &= ~valid[:, :-1]

        def flat(column: np.ndarray) -> Tensor:
            return self.device.take(column[valid][None].astype(np.int64))

        row = rows[:, :-1][valid]
        there = self.device.take(row >= 0)
        items = self.device.take(place[np.maximum(row, 0)])
        vectors = vectors_of(values)[items] * there[:, None]
        queries: Tensor = self._forward(
            vectors[None], flat(windows.kind[:, :-1]), flat(windows.gap[:, :-1]),
            flat(windows.price[:, :-1]), flat(windows.gap[:, 1:]), flat(first).bool(),
            valid.shape[1],
        )  # fmt: skip
        return queries[0]

    # -- state -------------------------------------------------------------------------------

    def state(self) -> dict[str, np.ndarray]:
        """Everything that learning goes on from, by name: weights, vectors, Adam's moments."""
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        names = [name for name, _ in self.model.named_parameters()]
        for n, moments in self.optimizer.state_dict()["state"].items():
            for name, value in moments.items():
                tensors[f"adam.{names[n]}.{name}"] = value
        given = np.flatnonzero(self.table.key >= 0)
        for name in ("values", "mean", "square", "steps"):
            tensors[f"table.{name}"] = getattr(self.table, name)[torch.from_numpy(given)]
        found = {name: value.detach().cpu().numpy() for name, value in tensors.items()}
        return found | {"table.count": self.table.count[given]}

    def restore(self, state: dict[str, np.ndarray], keys: np.ndarray, slots: np.ndarray) -> None:
        """Go on from a `state`; keys, slots: (N,) what its items, in order, are called here.

        Keys below 0 are items that are not wanted. Raises ValueError when it is of another shape.
        """
        own = self.model.state_dict()
        theirs = {name: state[f"model.{name}"] for name in own if f"model.{name}" in state}
        for name, value in own.items():
            if name not in theirs or theirs[name].shape != tuple(value.shape):
                there = theirs[name].shape if name in theirs else "missing"
                raise ValueError(f"weights {name!r} are {there}, not {tuple(value.shape)}")
        self.model.load_state_dict({n: torch.tensor(value) for n, value in theirs.items()})
        moments: dict[int, dict[str, Tensor]] = {}
        for n, (name, _) in enumerate(self.model.named_parameters()):
            mine = {
                each: torch.tensor(state[f"adam.{name}.{each}"])
                for each in ("step", "exp_avg", "exp_avg_sq")
                if f"adam.{name}.{each}" in state
            }
            if mine:
                moments[n] = mine
        optimizer = self.optimizer.state_dict()
        self.optimizer.load_state_dict({**optimizer, "state": moments})
        self.table.restore(state, keys, slots)
