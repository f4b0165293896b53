"""The encoder from a historical log, as a checkpoint that a worker starts from."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from encoders.config import Shape
from encoders.devices import Device
from encoders.offline import Log, OfflineConfig, OfflineTraining, Score
from infra.checkpoint import FORMAT, About, write_checkpoint
from online.columns import INTERACTIONS, KIND
from online.events import Event
from online.sequence import price_bucket
from online.teaching import EncoderConfig

Say = Callable[[int, int, str], None]  # steps done, of how many, what to note
LEAVE_ONE_OUT, LAST_VALIDATES = "leave-one-out", "last-validates"
PROTOCOLS = (LAST_VALIDATES, LEAVE_ONE_OUT)


class TrainingError(Exception):
    """There is nothing to learn from."""


@dataclass(slots=True)
class Trained:
    """Figures of a training, by epoch, and the scores of the weights that were kept."""

    epochs: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0
    validation: Score = Score(0.0, 0.0, 0)
    test: Score | None = None


def read(events: Iterable[Event]) -> tuple[Log, list[str]]:
    """Interactions as a `Log`, and the ids of its items. Raises TrainingError without any."""
    users: dict[str, int] = {}
    items: dict[str, int] = {}
    rows = [
        (users.setdefault(e.user_id, len(users)), items.setdefault(e.item_id, len(items)),
         KIND[e.type], price_bucket(e.price), e.ts)
        for e in events
        if e.type in INTERACTIONS
    ]  # fmt: skip
    if not rows:
        raise TrainingError("the log has no views, clicks, carts, purchases or ratings to learn")
    user, item, kind, price, ts = np.array(rows, np.int64).T
    order = np.lexsort((np.arange(len(ts)), ts, user))
    often = np.argsort(-np.bincount(item, minlength=len(items)), kind="stable")
    row_of = np.empty(len(items), np.int64)
    row_of[often] = np.arange(len(items))
    start = np.concatenate([[0], np.cumsum(np.bincount(user))])
    ids = list(items)
    log = Log(start, row_of[item[order]], kind[order], price[order], ts[order])
    return log, [ids[n] for n in often.tolist()]


def train(
    log: Log, shape: Shape, config: OfflineConfig, device: Device, protocol: str, say: Say,
) -> tuple[OfflineTraining, Trained]:  # fmt: skip
    """Learn until the epochs are over or validation no longer gets better; keep the best."""
    held = 2 if protocol == LEAVE_ONE_OUT else 1
    if (np.diff(log.start) > held + 1).sum() == 0:
        raise TrainingError(f"no user has more than {held + 1} events: there is nothing to learn")
    training, trained, since = OfflineTraining(shape, config, device, log, held), Trained(), 0
    total, done, note = config.epochs * training.steps, 0, ""
    for epoch in range(1, config.epochs + 1):
        losses = []
        for loss in training.epoch(epoch - 1):
            losses.append(loss)
            done += 1
            say(done, total, note)
        figures = {"epoch": epoch, "loss": float(np.nanmean(losses))}
        if epoch % config.every == 0 or epoch == config.epochs:
            score, better = training.try_out(held)
            figures |= {"hr@10": score.hr, "ndcg@10": score.ndcg}
            note = f"epoch {epoch}, validation NDCG@10 {score.ndcg:.4f}"
            since += 1
            if better:
                trained.best_epoch, trained.validation, since = epoch, score, 0
        trained.epochs.append(figures)
        if since >= config.patience:
            break
    training.back_to_best()
    if protocol == LEAVE_ONE_OUT:
        trained.test = training.evaluate(1)
    say(total, total, note)
    return training, trained


def save(folder: Path, training: OfflineTraining, ids: list[str], made: dict[str, Any]) -> None:
    """Write what was learned as a checkpoint. Raises CheckpointError."""
    shape = training.learner.shape
    about = About(FORMAT, shape.width, shape.channels, shape.hidden, ids, made)
    write_checkpoint(folder, about, training.learner.state())


def default_shape() -> Shape:
    """That of the encoder which serves."""
    served = EncoderConfig()
    return Shape(served.width, served.channels, served.hidden)
