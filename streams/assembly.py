"""A core with everything that it is made of: what serves live and what a backtest runs."""

from __future__ import annotations

from pathlib import Path

from encoders.index import ApproximateIndex
from infra.checkpoint import CheckpointError, read_about
from online.core import Recommender, RecommenderConfig
from online.sharing import Follower
from online.teaching import EncoderConfig
from streams.trainer_process import TrainerProcess


def make_core(config: RecommenderConfig) -> Recommender:
    """A recommender, and the trainer of its sequence encoder if that is on.

    Raises CheckpointError when the encoder cannot start from the checkpoint that is configured.
    """
    encoder = config.encoder
    if not encoder.on:
        return Recommender(config)
    if encoder.follows:
        return Recommender(config, Follower(), ApproximateIndex(encoder.width))
    items = checkpoint_items(encoder)
    trainer = TrainerProcess(encoder, config.memory.items, config.seed)
    core = Recommender(config, trainer, ApproximateIndex(encoder.width))
    if items:
        core.start_encoder(items)
    return core


def checkpoint_items(encoder: EncoderConfig) -> list[str]:
    """The items of the checkpoint to start from; none without one.

    Raises CheckpointError when it cannot be read, or is of another shape.
    """
    if not encoder.start:
        return []
    about = read_about(Path(encoder.start))
    theirs = about.width, about.channels, about.hidden
    ours = encoder.width, encoder.channels, encoder.hidden
    if theirs != ours:
        raise CheckpointError(
            f"the checkpoint {encoder.start} has width, channels, hidden {theirs}, this encoder "
            f"{ours}: train it anew, or set encoder.width, encoder.channels and encoder.hidden"
        )
    return about.items
